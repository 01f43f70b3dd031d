"""Tests of paraedge.data.readers: idx, npz, CIFAR pickles (hostile ones too) and folders of images."""

import contextlib
import gzip
import io
import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from paraedge.data import readers
from paraedge.data.readers import read_cifar_batch, read_class_folder, read_idx, read_npz
from paraedge_runtime.errors import InputError

RNG = np.random.default_rng(0)


# --- idx ------------------------------------------------------------------------------------------


def _idx(array, kind=0x08, zero=0):
    return struct.pack(f">HBB{array.ndim}I", zero, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"], ids=["plain", "gzipped"])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 6)], ids=["labels", "images"])
def test_idx_is_read(tmp_path, name, shape):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / name
    path.write_bytes(gzip.compress(_idx(array)) if name.endswith(".gz") else _idx(array))
    read = read_idx(path)
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)
    assert read.flags.writeable  # torch warns about an array that is not


_IDX = _idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(_IDX[:3], id="header-cut"),
        pytest.param(_IDX[:10], id="shape-cut"),
        pytest.param(_IDX[:-1], id="truncated"),
        pytest.param(_IDX + b"\0", id="too-long"),
        pytest.param(b"\x50" + _IDX[1:], id="wrong-magic"),
        pytest.param(_IDX[:2] + b"\x0d" + _IDX[3:], id="floats"),
        pytest.param(_IDX[:7] + b"\x03" + _IDX[8:], id="wrong-count"),
        pytest.param(struct.pack(">HBB4I", 0, 8, 4, *[65536] * 4), id="shape-whose-product-overflows"),
        pytest.param(struct.pack(">HBB70I", 0, 8, 70, *[1] * 70) + b"x", id="more-axes-than-numpy-has"),
        pytest.param(struct.pack(">HBB2I", 0, 8, 2, 1 << 31, 5), id="more-than-is-read"),
        pytest.param(struct.pack(">HBB2I", 0, 8, 2, 1 << 31, 3) + b"x", id="memory-for-what-is-not-there"),
        pytest.param(b"<html>404 Not Found</html>", id="web-page"),
    ],
)
def test_damaged_idx_is_refused_by_name(tmp_path, content):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"images-idx3-ubyte is not an idx file of bytes: .*; download it again"):
        read_idx(path)


def _broken_stream():
    data = bytearray(gzip.compress(_idx(RNG.integers(0, 9, 4000, dtype=np.uint8))))
    data[10:30] = b"\xff" * 20
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(_IDX, id="not-gzipped"),
        pytest.param(gzip.compress(_IDX)[:-12], id="truncated"),
        pytest.param(gzip.compress(_IDX)[:-8] + b"\0" * 8, id="wrong-checksum"),
        pytest.param(_broken_stream(), id="broken-stream"),
        pytest.param(gzip.compress(_IDX[:-1]), id="truncated-inside"),
        pytest.param(b"", id="empty"),
    ],
)
def test_damaged_gzip_is_refused_by_name(tmp_path, content):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"images\.gz is not an idx file"):
        read_idx(path)


def test_missing_idx_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.gz"):
        read_idx(tmp_path / "nowhere.gz")


# --- npz ------------------------------------------------------------------------------------------


def _npz_arrays(shape=(6, 5, 4), **changes):
    arrays = {
        "x_train": RNG.integers(0, 256, shape, dtype=np.uint8),
        "y_train": np.arange(shape[0]) % 3,
        "x_test": RNG.integers(0, 256, (2, *shape[1:]), dtype=np.uint8),
        "y_test": np.arange(2),
    }
    arrays.update(changes)
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize(
    "shape", [(6, 5, 4), (6, 5, 4, 1), (6, 5, 4, 3)], ids=["no-channel-axis", "one-channel", "three-channels"]
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_npz_is_read(tmp_path, shape, save):
    arrays = _npz_arrays(shape)
    save(tmp_path / "a.npz", **arrays)
    train, test = read_npz(tmp_path / "a.npz")
    assert np.array_equal(train.images, arrays["x_train"].reshape(6, 5, 4, -1))
    assert np.array_equal(test.images, arrays["x_test"].reshape(2, 5, 4, -1))
    assert train.labels.tolist() == arrays["y_train"].tolist()
    assert test.labels.tolist() == arrays["y_test"].tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_npz_labels_may_be_any_integers_and_a_column(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", **_npz_arrays(y_train=np.arange(6, dtype=dtype).reshape(6, 1)))
    train, _ = read_npz(tmp_path / "a.npz")
    assert train.labels.dtype == np.int64
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"x_test": None}, "has no array x_test; it holds x_train, y_train, y_test", id="one-missing"),
        pytest.param({"x_test": None, "y_train": None}, "has no array y_train, x_test", id="two-missing"),
        pytest.param(
            {"x_train": np.zeros((6, 5, 4), np.float32)}, "images must be uint8 .* got float32", id="float-images"
        ),
        pytest.param({"x_train": np.zeros((6, 5, 4), bool)}, "images must be uint8 .* got bool", id="bool-images"),
        pytest.param({"y_train": np.zeros(6)}, "labels integers, got .* and float64", id="float-labels"),
        pytest.param({"y_train": np.array(list("abcdef"))}, "labels integers, got .*<U1", id="text-labels"),
        pytest.param({"y_train": np.zeros(5, np.int64)}, r"labels must be \(6,\)", id="label-count"),
        pytest.param({"x_train": np.zeros((6, 5), np.uint8)}, r"got \(6, 5\) uint8", id="flat-images"),
    ],
)
def test_npz_that_does_not_hold_a_data_set_is_refused(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **_npz_arrays(**changes))
    with pytest.raises(InputError, match=message):
        read_npz(tmp_path / "a.npz")


class _Touch:
    """Pickles to a call that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_npz_of_pickled_objects_is_refused_and_not_executed(tmp_path):
    mark = tmp_path / "executed"
    np.savez(tmp_path / "a.npz", **_npz_arrays(x_train=np.array([_Touch(mark)], dtype=object)))
    with pytest.raises(
        InputError, match=r"a\.npz cannot be read: x_train holds Python objects, which are never loaded"
    ):
        read_npz(tmp_path / "a.npz")
    assert not mark.exists()


def _npy(header, data=b"", version=b"\1\0"):
    text = header.encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }\n", b"x"),
            "which does not match its 81 bytes",
        ),
        (_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }\n", b"x"), "which does not match its "),
        (_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (5L,\n", b"x"), "EOF in multi-line statement"),
        (_npy("{" * 400 + "\n"), "EOF in multi-line statement"),
        (_npy("{}\n", version=b"\3\0"), "version"),
        (b"", "EOF: reading magic string"),
    ],
    ids=["terabytes", "negative", "tokenizer", "deep", "version", "empty"],
)
def test_npz_with_a_damaged_array_is_refused_before_it_takes_memory(tmp_path, content, problem):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(InputError, match=rf"a\.npz cannot be read: .*{problem}"):
        read_npz(path)


def test_npz_of_more_than_is_read_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", **_npz_arrays(x_train=np.zeros((100, 50, 50), np.uint8)))
    monkeypatch.setattr(readers, "_MAX_ARRAY_BYTES", 200_000)
    with pytest.raises(InputError, match="x_train has 250128 bytes, more than the 200000 allowed"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("read", [read_npz, read_idx, read_cifar_batch])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "data")
    with pytest.raises(InputError, match="not a plain file"):
        read(tmp_path / "data")


def test_plain_pickle_named_npz_is_refused_and_not_executed(tmp_path):
    mark = tmp_path / "executed"
    (tmp_path / "a.npz").write_bytes(pickle.dumps(_Touch(mark)))
    with pytest.raises(InputError, match=r"a\.npz cannot be read"):
        read_npz(tmp_path / "a.npz")
    assert not mark.exists()


def _npz_bytes():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_npz_arrays((6, 16, 16)))
    return buffer.getvalue()


def _lone_array():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((6, 5, 4), np.uint8))
    return buffer.getvalue()


def _broken_member():
    data = bytearray(_npz_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.infolist()[0].header_offset + 80
    data[start : start + 40] = b"\xff" * 40
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a zip", id="text"),
        pytest.param(_npz_bytes()[:-40], id="directory-cut"),
        pytest.param(_npz_bytes()[: len(_npz_bytes()) // 2], id="half"),
        pytest.param(_broken_member(), id="broken-stream"),
        pytest.param(_lone_array(), id="npy-under-this-name"),
    ],
)
def test_damaged_npz_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz cannot be read: .*download it again"):
        read_npz(tmp_path / "a.npz")


def test_any_flipped_byte_of_an_npz_gives_the_data_or_an_input_error(tmp_path):
    content = _npz_bytes()
    refused = 0
    for position in range(0, len(content), 11):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            read_npz(tmp_path / "a.npz")
        except InputError:
            refused += 1
    assert refused > 50


# --- CIFAR pickles --------------------------------------------------------------------------------


def _py2_string(value):
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def _py2_array(pixels, rows):
    """A uint8 array (rows, 3072) as Python 2's numpy pickled it, opcode for opcode."""
    dtype = b"cnumpy\ndtype\n" + _py2_string(b"u1") + b"K\0K\1\x87R(K\3" + _py2_string(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    shape = b"J" + struct.pack("<i", rows) + b"M\x00\x0c\x86"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85"
        + _py2_string(b"b")
        + b"\x87R(K\1"
        + shape
        + dtype
        + b"\x89"
        + _py2_string(pixels)
        + b"tb"
    )


def _py2_batch(pixels, labels):
    """A batch file as the CIFAR-10 archive holds it."""
    ints = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = [
        _py2_string(b"batch_label") + _py2_string(b"training batch 1 of 5"),
        _py2_string(b"labels") + ints,
        _py2_string(b"data") + _py2_array(pixels, len(labels)),
        _py2_string(b"filenames") + b"](" + b"".join(_py2_string(b"leptodactylus.png") for _ in labels) + b"e",
    ]
    return b"\x80\2}(" + b"".join(items) + b"u."


def _planes(count):
    return RNG.integers(0, 256, (count, 3072), dtype=np.uint8)


def _expected(planes):
    """Pixel by pixel: 1024 of red, of green, of blue; rows of 32."""
    images = np.empty((len(planes), 32, 32, 3), dtype=np.uint8)
    for channel in range(3):
        for row in range(32):
            start = 1024 * channel + 32 * row
            images[:, row, :, channel] = planes[:, start : start + 32]
    return images


def test_cifar_batch_as_python_2_wrote_it_is_read(tmp_path):
    planes = _planes(4)
    path = tmp_path / "data_batch_1"
    path.write_bytes(_py2_batch(planes.tobytes(), [3, 0, 9, 1]))
    batch = read_cifar_batch(path)
    assert np.array_equal(batch.images, _expected(planes))
    assert batch.labels.tolist() == [3, 0, 9, 1]


def test_cifar_batch_as_python_3_writes_it_with_protocol_2_is_read(tmp_path):
    planes = _planes(3)
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": planes, b"labels": [3, 0, 9]}, protocol=2))
    batch = read_cifar_batch(path)
    assert np.array_equal(batch.images, _expected(planes))
    assert batch.labels.tolist() == [3, 0, 9]


def test_cifar_plane_order_is_red_green_blue_by_rows(tmp_path):
    planes = np.zeros((1, 3072), dtype=np.uint8)
    planes[0, 1] = 10  # red, row 0, column 1
    planes[0, 1024 + 32] = 20  # green, row 1, column 0
    planes[0, 3071] = 30  # blue, last row, last column
    path = tmp_path / "test_batch"
    path.write_bytes(_py2_batch(planes.tobytes(), [0]))
    image = read_cifar_batch(path).images[0]
    assert image[0, 1].tolist() == [10, 0, 0]
    assert image[1, 0].tolist() == [0, 20, 0]
    assert image[31, 31].tolist() == [0, 0, 30]
    assert int(image.sum()) == 60


def _doubled(times):
    labels = [0]
    for _ in range(times):
        labels = [labels] * 10
    return labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "exhausted before", id="empty"),
        pytest.param(b"\x80\2}(U\4da", "", id="truncated"),
        pytest.param(_py2_batch(bytes(2 * 3072), [0, 1])[:-500], "", id="truncated-pixels"),
        pytest.param(pickle.dumps({b"labels": [0]}, protocol=2), "data", id="no-data"),
        pytest.param(pickle.dumps({b"data": _planes(1)}, protocol=2), "labels", id="no-labels"),
        pytest.param(pickle.dumps([1, 2, 3], protocol=2), "", id="not-a-dict"),
        pytest.param(pickle.dumps({"data": _planes(1), "labels": [0]}, protocol=2), "data", id="text-keys"),
        pytest.param(
            _py2_batch(bytes(2 * 3072), [0, 1]).replace(b"M\x00\x0c", b"M\x01\x0c"), "", id="shape-not-pixels"
        ),
        pytest.param(pickle.dumps({b"data": _planes(2), b"labels": [0]}, protocol=2), "labels must be", id="counts"),
        pytest.param(
            pickle.dumps({b"data": _planes(2)[:, :-3], b"labels": [0, 1]}, protocol=2), "reshape", id="too-few-pixels"
        ),
        pytest.param(
            pickle.dumps({b"data": _planes(1).astype(float), b"labels": [0]}, protocol=2),
            "it builds an array of b?'f8'",
            id="float-pixels",
        ),
        pytest.param(pickle.dumps({b"data": _planes(1), b"labels": ["x"]}, protocol=2), "", id="text-labels"),
        # 16 GB for the memo; hours to hash a tuple of tuples; 10 to the 30 labels.
        pytest.param(b"\x80\2}r\xff\xff\xff\x7f.", "it has place 2147483647 of the memo", id="memo-of-gigabytes"),
        pytest.param(b"\x80\2})q\0" + b"h\0h\0\x86q\0" * 60 + b"K\0s.", "uses a .* twice", id="endless-hash"),
        pytest.param(b"\x80\2})(eq\0h\0h\0\x86K\0s.", "uses a .* twice", id="tuple-behind-another-opcode"),
        pytest.param(
            pickle.dumps({b"data": _planes(1), b"labels": _doubled(30)}, protocol=2),
            "uses a .* twice",
            id="endless-labels",
        ),
        pytest.param(
            pickle.dumps({b"data": _planes(1), b"labels": [[0]]}, protocol=2),
            "not a list of numbers",
            id="nested-labels",
        ),
    ],
)
def test_damaged_cifar_batch_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"data_batch_1 is not a CIFAR-10 batch: .*{message}.*; download it again"):
        read_cifar_batch(path)


def test_missing_cifar_batch_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="data_batch_3 is missing; unpack the archive again"):
        read_cifar_batch(tmp_path / "data_batch_3")


def _call(module, name, *arguments):
    """Protocol 2: call ``module.name`` with arguments (text or numbers) and leave the result as the pickle's value."""
    packed = b"".join(pickle.dumps(argument, protocol=2)[2:-1] for argument in arguments)
    return b"\x80\2" + f"c{module}\n{name}\n".encode() + b"(" + packed + b"tR."


def _inst(module, name, argument):
    return b"(" + f"V{argument}\n".encode() + f"i{module}\n{name}\n.".encode()


# Each would leave the file named by its argument if a plain pickle.loads read it.
_LIVE = {
    "os.system": lambda mark: _call("os", "system", f"touch '{mark}'"),
    "posix.system": lambda mark: _call("posix", "system", f"touch '{mark}'"),
    "subprocess": lambda mark: _call("subprocess", "call", ["touch", str(mark)]),
    "builtins.open": lambda mark: _call("builtins", "open", str(mark), "w"),
    "python-2-name-of-builtins": lambda mark: _call("__builtin__", "open", str(mark), "w"),
    "builtins.eval": lambda mark: _call("builtins", "eval", f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: _call("builtins", "exec", f"open({str(mark)!r}, 'w')"),
    "numpy.save": lambda mark: _call("numpy", "save", f"{mark}", 1),
    "numpy.memmap": lambda mark: _call("numpy", "memmap", str(mark), "u1", "w+", 0, 4),
    "numpy.savetxt": lambda mark: _call("numpy", "savetxt", str(mark), [1]),
    "inst-opcode": lambda mark: _inst("os", "system", f"touch {mark}"),
    "obj-opcode": lambda mark: b"(cos\nsystem\n" + pickle.dumps(f"touch '{mark}'", protocol=2)[2:-1] + b"o.",
    "inside-a-real-batch": lambda mark: (
        _py2_batch(bytes(3072), [1])[:-2]
        + _py2_string(b"extra")
        + _call("os", "system", f"touch '{mark}'")[2:-1]
        + b"u."
    ),
    "in-place-of-the-array-type": lambda mark: (
        b"\x80\2cnumpy._core.multiarray\n_reconstruct\n("
        + _call("os", "system", f"touch '{mark}'")[2:-1]
        + b"K\0\x85U\1btR."
    ),
    "reduce-of-an-object": lambda mark: pickle.dumps({b"data": _Touch(mark), b"labels": [0]}, protocol=2),
    "newest-protocol": lambda mark: pickle.dumps(_Touch(mark), protocol=pickle.HIGHEST_PROTOCOL),
}


@pytest.mark.filterwarnings("ignore")  # what the plain unpickler of the control leaves open
@pytest.mark.parametrize("name", [name for name in _LIVE if name not in ("obj-opcode", "inst-opcode")])
def test_hostile_pickles_of_these_tests_are_live(tmp_path, name):
    mark = tmp_path / "executed"
    with contextlib.suppress(Exception):
        pickle.loads(_LIVE[name](mark), encoding="bytes")
    assert list(tmp_path.glob("executed*"))


@pytest.mark.parametrize("name", _LIVE)
def test_hostile_pickle_is_refused_and_not_executed(tmp_path, name):
    mark = tmp_path / "executed"
    path = tmp_path / "data_batch_1"
    path.write_bytes(_LIVE[name](mark))
    with pytest.raises(InputError, match=r"data_batch_1 is not a CIFAR-10 batch: it (refers to |uses (INST|OBJ))"):
        read_cifar_batch(path)
    assert [file.name for file in tmp_path.iterdir()] == ["data_batch_1"]


_RECONSTRUCT = b"\x80\2cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(_RECONSTRUCT + b"cnumpy\nmatrix\nK\0\x85U\1b\x87R.", "it refers to numpy.matrix", id="matrix"),
        pytest.param(_RECONSTRUCT + b"cnumpy\ndtype\nK\0\x85U\1b\x87R.", "it builds a ", id="dtype-as-array-type"),
        pytest.param(_RECONSTRUCT + b"U\1bK\0\x85U\1b\x87R.", "it builds a ", id="text-as-array-type"),
        pytest.param(_call("numpy", "ndarray.tofile", "x"), "numpy.ndarray.tofile", id="method-by-dotted-name"),
        pytest.param(_call("numpy", "ndarray.__subclasses__"), "__subclasses__", id="subclasses"),
        pytest.param(_call("numpy", "load", "x"), "numpy.load", id="numpy.load"),
        pytest.param(_call("numpy", "recarray", 1), "numpy.recarray", id="array-subclass"),
        pytest.param(_call("numpy.core.multiarray", "scalar", 1), "multiarray.scalar", id="scalar"),
        pytest.param(_call("copyreg", "_reconstructor", 1), "copyreg._reconstructor", id="copyreg"),
        pytest.param(_call("functools", "partial", 1), "functools.partial", id="partial"),
        pytest.param(_call("builtins", "getattr", 1), "getattr", id="getattr"),
        pytest.param(_call("_codecs", "decode", "x", "rot13"), "_codecs.decode", id="other-codec-function"),
        pytest.param(_call("_codecs", "encode", "x", "rot13"), "encodes text as", id="other-encoding"),
        pytest.param(_call("paraedge.data.readers", "Path", "x"), "paraedge.data.readers.Path", id="own-module"),
        pytest.param(b"\x80\2X\1\0\0\0xQ.", "it uses BINPERSID", id="persistent-id"),
        pytest.param(b"\x80\2\x82\1.", "it uses EXT1", id="extension-code"),
        pytest.param(_call("numpy", "dtype", "O"), "it builds an array of", id="object-dtype"),
        pytest.param(_call("numpy", "dtype", "V8", False, True), "it builds an array of", id="void-dtype"),
    ],
)
def test_pickle_that_reaches_for_anything_but_byte_arrays_is_refused(tmp_path, content, message):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_cifar_batch(path)


def test_fields_smuggled_into_a_dtype_are_ignored(tmp_path):
    """A dtype takes fields from its pickled state without checking them: pointers, and offsets out of the array."""

    class Dtype:
        def __reduce__(self):
            fields = {"a": (np.dtype(np.uint8), 0), "b": (np.dtype(np.uint8), 4096)}
            return (np.dtype, ("u1", False, True), (3, "|", None, ("a", "b"), fields, 1, 1, 0))

    class Array:
        def __reduce__(self):
            reconstruct, arguments, _ = np.zeros(0, np.uint8).__reduce__()
            return (reconstruct, arguments, (1, (1, 3072), Dtype(), False, b"\7" * 3072))

    content = pickle.dumps(Array(), protocol=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pickle.loads(content).dtype.names == ("a", "b")  # what numpy itself makes of it
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Array(), b"labels": [0]}, protocol=2))
    assert np.array_equal(read_cifar_batch(path).images, np.full((1, 32, 32, 3), 7, dtype=np.uint8))
    assert np.dtype(np.uint8).names is None


class _Call:
    """Pickles to a call of ``function``."""

    def __init__(self, function, *arguments, state=None):
        self._reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self._reduced


def _array_with(shape, data, dtype=None, order=False):
    reconstruct, arguments, _ = np.zeros(0, np.uint8).__reduce__()
    return _Call(reconstruct, *arguments, state=(1, shape, dtype or np.dtype(np.uint8), order, data))


# numpy.ndarray called by the pickle makes object pointers of the file's bytes, memory that nobody wrote, or terabytes.
_REACH_FOR_MEMORY = {
    "object pointers": _Call(np.ndarray, (8,), "O", b"A" * 64),
    "huge": _Call(np.ndarray, (1 << 40,), "u1"),
    "strides": _Call(np.ndarray, (1 << 20, 3072), "u1", b"a" * 3072, 0, (0, 1)),
    "not written": _Call(np.ndarray, (1, 3072), "u1"),
    "without state": _Call(*np.zeros(0, np.uint8).__reduce__()[:1], *np.zeros(0, np.uint8).__reduce__()[1]),
    "fewer bytes than its shape": _array_with((2, 3072), bytes(3072)),
    "huge shape": _array_with((1 << 40, 3072), bytes(3072)),
    "state of objects": _array_with((1, 3072), [0] * 3072),
    "a dtype that is a text": _array_with((1, 3072), bytes(3072), "u1"),
    "a list": [[0] * 3072],
}


@pytest.mark.parametrize("data", _REACH_FOR_MEMORY.values(), ids=_REACH_FOR_MEMORY)
def test_a_pickle_does_not_choose_memory(tmp_path, data):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": data, b"labels": [0]}, protocol=2))
    with pytest.raises(InputError, match="data_batch_1 is not a CIFAR-10 batch"):
        read_cifar_batch(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
    ],
)
def test_a_name_in_a_pickle_is_an_inert_record_that_cannot_be_changed(module, name):
    found = readers._ArrayUnpickler(io.BytesIO()).find_class(module, name)
    assert type(found).__module__ == "paraedge.data.readers"
    with pytest.raises(AttributeError):
        found.anything = 1
    content = b"\x80\2c" + f"{module}\n{name}\n".encode() + b"}U\4makeK\1sb."
    with pytest.raises(pickle.UnpicklingError, match="it changes a name"):
        readers._ArrayUnpickler(io.BytesIO(content)).load()


# --- folders of images --------------------------------------------------------------------------


def _image(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def images(tmp_path):
    """Two classes; png, jpg and bmp, grey and colour, below sub-folders too."""
    grey, colour = np.full((20, 30), 90, np.uint8), np.full((16, 16, 3), (200, 100, 0), np.uint8)
    _image(tmp_path / "cat" / "a.png", grey)
    _image(tmp_path / "cat" / "b.JPG", colour)
    _image(tmp_path / "dog" / "c.png", colour)
    _image(tmp_path / "dog" / "more" / "d.bmp", grey)
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    return tmp_path


def test_folder_of_images_as_colour(images):
    data = read_class_folder(images, ("cat", "dog"), image_size=8, channels=3)
    assert data.images.shape == (4, 8, 8, 3)
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert (data.images[0] == 90).all()
    assert np.abs(data.images[1].astype(int) - (200, 100, 0)).max() <= 3  # jpg loses a little
    assert (data.images[2] == (200, 100, 0)).all()
    assert (data.images[3] == 90).all()


def test_folder_of_images_as_grey(images):
    data = read_class_folder(images, ("cat", "dog"), image_size=8, channels=1)
    assert data.images.shape == (4, 8, 8, 1)
    assert (data.images[0] == 90).all()
    luma = round(0.299 * 200 + 0.587 * 100)
    assert np.abs(data.images[2].astype(int) - luma).max() <= 1


def test_image_of_the_right_size_keeps_its_pixels(tmp_path, digits):
    _image(tmp_path / "any" / "one.png", digits.test.images[0, :, :, 0])
    data = read_class_folder(tmp_path, ("any",), image_size=8, channels=1)
    assert np.array_equal(data.images[0], digits.test.images[0])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"text", id="text"),
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: content.replace(b"IDAT", b"\xcc\2\xe2$"), id="broken-chunk"),
    ],
)
def test_corrupt_image_is_refused_by_name(images, damage):
    _image(images / "dog" / "bad.png", RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    content = (images / "dog" / "bad.png").read_bytes()
    (images / "dog" / "bad.png").write_bytes(damage(content))
    with pytest.raises(InputError, match=r"bad\.png is not an image that can be read: .*; remove or replace it"):
        read_class_folder(images, ("cat", "dog"), image_size=8, channels=3)


def test_image_that_would_fill_the_memory_is_refused_by_name(tmp_path):
    header = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bomb.bmp").write_bytes(header)
    with pytest.raises(InputError, match=r"bomb\.bmp is not an image that can be read"):
        read_class_folder(tmp_path, ("a",), image_size=8, channels=3)


def test_images_that_would_fill_the_memory_together_are_refused(images, monkeypatch):
    monkeypatch.setattr("paraedge.data.readers._MAX_ARRAY_BYTES", 3 * 8 * 6)
    with pytest.raises(InputError, match=r"has more than 0 GiB of images of 8×6×1; use smaller or fewer images"):
        read_class_folder(images, ("cat", "dog"), image_size=(8, 6), channels=1)


def test_folders_without_images_are_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("nothing to see")
    with pytest.raises(InputError, match=r"has no images in its class folders \(cat, dog\)"):
        read_class_folder(tmp_path, ("cat", "dog"), image_size=8, channels=3)


def test_a_class_folder_without_images_is_refused_by_name(images):
    (images / "eel").mkdir()
    with pytest.raises(InputError, match=r"eel has no images; put some there, or remove that folder"):
        read_class_folder(images, ("cat", "dog", "eel"), image_size=8, channels=3)
    (images / "eel").rmdir()
    read_class_folder(images, ("cat", "dog", "eel"), image_size=8, channels=3)  # a test split may lack a class


@pytest.mark.parametrize("link", ["folder", "image"])
def test_links_to_elsewhere_are_no_images_of_a_data_set(tmp_path, link):
    """Images become a part of bundles: a data set of somebody else's takes none from this machine."""
    for folder in ("data/a", "data/b", "private"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / folder / "x.png")
    (tmp_path / "data" / "a" / "same.png").symlink_to("x.png")  # within
    assert len(read_class_folder(tmp_path / "data", ("a", "b"), 8, 1)) == 3
    if link == "folder":
        (tmp_path / "data" / "c").symlink_to(tmp_path / "private")
    else:
        (tmp_path / "data" / "b" / "y.png").symlink_to(tmp_path / "private" / "x.png")
    with pytest.raises(InputError, match=r"\.png is a link to outside of .*data; copy the files there"):
        read_class_folder(tmp_path / "data", ("a", "b", "c"), 8, 1)
