"""Where a bundle's bytes are: folders that lead elsewhere and zips that are not what they say are refused."""

import io
import os
import random
import stat
import struct
import warnings
import zipfile

import pytest
from support.bundles import edit_manifest, fake_bundle, tree

from paraedge_runtime import Bundle, BundleError, IntegrityError
from paraedge_runtime.manifest import MAX_MANIFEST_BYTES
from paraedge_runtime.storage import (
    MAX_FILES,
    FolderStorage,
    ZipStorage,
    looks_like_bundle,
    open_storage,
    write_zip,
)

FILES = {"manifest.json": b"{}", "a": b"123", "sub/b": b""}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    for name, data in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def packed(tmp_path):
    """The bytes of a good bundle zip."""
    bundle = fake_bundle(tmp_path / "packed.paraedge")
    return bundle.pack(tmp_path / "packed.zip").read_bytes()


def _zip(entries, compression=zipfile.ZIP_STORED):
    """A zip of (name or ZipInfo, bytes) pairs, whatever they are."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in entries:
            archive.writestr(name, data)
    return stream.getvalue()


def _entries(packed):
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_both_storages_read_the_same(folder, tmp_path, kind):
    write_zip(FILES, tmp_path / "zip")
    storage = open_storage(tmp_path / kind)
    assert isinstance(storage, FolderStorage if kind == "folder" else ZipStorage)
    assert storage.path == tmp_path / kind
    assert storage.names() == set(FILES)
    assert storage.read("a", 3) == b"123"
    assert storage.read("sub/b", 0) == b""
    assert storage.read("manifest.json", None) == b"{}"


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("name", "size_bytes", "problem"),
    [
        ("a", 2, "a has 3 bytes, manifest.json says 2"),
        ("a", 4, "a has 3 bytes, manifest.json says 4"),
        ("nothing", 3, "nothing is missing"),
        ("a/b", 3, "a/b"),
        ("sub", 0, "sub"),
    ],
)
def test_both_storages_refuse_the_same(folder, tmp_path, kind, name, size_bytes, problem):
    write_zip(FILES, tmp_path / "zip")
    with pytest.raises(IntegrityError, match=problem):
        open_storage(tmp_path / kind).read(name, size_bytes)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_huge_manifest_is_refused_before_it_is_read(tmp_path, kind):
    (tmp_path / "folder").mkdir()
    with (tmp_path / "folder" / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    if kind == "zip":
        write_zip({"manifest.json": bytes(MAX_MANIFEST_BYTES + 1)}, tmp_path / "zip")
    with pytest.raises(IntegrityError, match=r"manifest\.json has \d+ bytes, more than the 1048576 allowed"):
        open_storage(tmp_path / kind).read("manifest.json", None)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda path: None, "does not exist; make a bundle", id="missing"),
        pytest.param(lambda path: path.write_bytes(b""), "neither a bundle folder nor a zip", id="empty file"),
        pytest.param(lambda path: path.write_text("hello\n" * 99), "neither a bundle folder nor a zip", id="text file"),
        pytest.param(os.mkfifo, "neither a folder nor a file", id="pipe"),
        pytest.param(lambda path: path.symlink_to(path), "cannot be read", id="link to itself"),
        pytest.param(lambda path: path.symlink_to("gone"), "does not exist", id="link to nothing"),
    ],
)
def test_what_is_no_storage_is_refused(tmp_path, make, problem):
    path = tmp_path / "it"
    make(path)
    with pytest.raises(IntegrityError, match=problem) as caught:
        open_storage(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("target", "name"),
    [("a", "link"), ("../outside", "link"), ("gone", "link"), ("sub", "link"), ("..", "sub/up"), ("/", "root")],
)
def test_a_link_anywhere_in_a_folder_is_refused(folder, tmp_path, target, name):
    (tmp_path / "outside").write_text("secret")
    (folder / name).symlink_to(target)
    with pytest.raises(IntegrityError, match=f"{name} is a symbolic link"):
        FolderStorage(folder).names()


def test_a_link_put_there_after_the_check_is_not_followed(folder, tmp_path):
    storage = FolderStorage(folder)
    storage.names()
    (tmp_path / "outside").write_text("123")
    (folder / "a").unlink()
    (folder / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError, match="a cannot be read"):
        storage.read("a", 3)


def test_a_pipe_in_a_folder_is_refused_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(IntegrityError, match="pipe is not a plain file"):
        FolderStorage(folder).names()


def test_a_link_to_a_whole_bundle_is_the_users_own_business(tmp_path):
    fake_bundle(tmp_path / "real.paraedge")
    (tmp_path / "link.paraedge").symlink_to("real.paraedge")
    assert Bundle.open(tmp_path / "link.paraedge").manifest.name == "fake"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_crowd_of_files_is_no_bundle(tmp_path, kind):
    names = [f"{number:05d}" for number in range(MAX_FILES + 1)]
    if kind == "folder":
        (tmp_path / kind).mkdir()
        for name in names:
            (tmp_path / kind / name).touch()
    else:
        write_zip(dict.fromkeys(names, b""), tmp_path / kind)
    with pytest.raises(IntegrityError, match=f"more than {MAX_FILES}"):
        open_storage(tmp_path / kind).names()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("m.paraedge", True), ("m.zip", True), ("folder", True), ("checkpoint", False), ("m.npz", False)],
)
def test_looks_like_bundle(folder, tmp_path, name, meant):
    (tmp_path / "checkpoint").mkdir()
    assert looks_like_bundle(tmp_path / name) is meant


def test_zip_is_reproducible_stored_and_starts_with_the_manifest(tmp_path):
    write_zip(FILES, tmp_path / "one")
    write_zip(dict(reversed(FILES.items())), tmp_path / "two")
    raw = (tmp_path / "one").read_bytes()
    assert raw == (tmp_path / "two").read_bytes()
    # Local header of the first entry: no flags, stored, 1980-01-01, then its name and its bytes.
    assert raw[:4] == b"PK\x03\x04"
    assert raw[6:14] == b"\0\0\0\0\0\0\x21\0"
    assert raw[30:45] == b"manifest.json{}"
    with zipfile.ZipFile(tmp_path / "one") as archive:
        assert archive.namelist() == ["manifest.json", "a", "sub/b"]
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o644}
        assert archive.testzip() is None


def test_writing_a_zip_that_fails_leaves_the_old_one(tmp_path):
    (tmp_path / "zip").write_bytes(b"old")
    with pytest.raises(TypeError):
        write_zip({"a": b"1", "b": 5}, tmp_path / "zip")
    assert tree(tmp_path) == {"zip": b"old"}


def _named(name):
    return lambda packed: _zip([*_entries(packed).items(), (name, b"x")])


def _compressed(packed):
    return _zip(_entries(packed).items(), zipfile.ZIP_DEFLATED)


def _bomb(packed):
    files = {**_entries(packed), "stem.fake": bytes(20 << 20)}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _patched(packed, name, offset, fields, *values):
    """The zip with a field of a file's entry in the central directory changed."""
    raw = bytearray(packed)
    place = raw.rindex(name.encode()) - 46
    assert raw[place : place + 4] == b"PK\x01\x02"
    struct.pack_into(fields, raw, place + offset, *values)
    return bytes(raw)


def _link(packed):
    entries = _entries(packed)
    entry = zipfile.ZipInfo("stem.fake")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    del entries["stem.fake"]
    return _zip([*entries.items(), (entry, b"/etc/passwd")])


def _zip64_offset(packed, offset):
    """The last entry's offset moved into a zip64 field, where 64 bits fit."""
    raw = bytearray(packed)
    end = raw.rindex(b"PK\x05\x06")
    place = raw.rindex(b"PK\x01\x02")
    (name_bytes,) = struct.unpack_from("<H", raw, place + 28)
    extra = struct.pack("<HHQ", 1, 8, offset)
    (directory_bytes,) = struct.unpack_from("<I", raw, end + 12)
    struct.pack_into("<I", raw, end + 12, directory_bytes + len(extra))
    struct.pack_into("<I", raw, place + 42, 0xFFFFFFFF)
    struct.pack_into("<H", raw, place + 30, len(extra))
    raw[place + 46 + name_bytes : place + 46 + name_bytes] = extra
    return bytes(raw)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(_named("../evil"), r"'\.\./evil' would leave", id="climbs"),
        pytest.param(_named("golden/../../evil"), "would leave", id="climbs in the middle"),
        pytest.param(_named("/etc/passwd"), "'/etc/passwd' would leave", id="absolute"),
        pytest.param(_named("C:/evil"), "would leave", id="drive"),
        pytest.param(_named("..\\evil"), "would leave", id="backslash"),
        pytest.param(_named("stem.fake"), "stem.fake is in the zip twice", id="twice"),
        pytest.param(_named("STEM.fake"), "STEM.fake is in the zip twice", id="twice but for case"),
        pytest.param(_named("extra"), "extra is not listed in manifest.json", id="unlisted"),
        pytest.param(_named("golden/.hidden"), r"golden/\.hidden is not listed", id="hidden"),
        pytest.param(_named("golden/images.npy/x"), "is not listed", id="below a file"),
        pytest.param(_compressed, "manifest.json is compressed", id="compressed"),
        pytest.param(_bomb, "is compressed", id="bomb"),
        pytest.param(
            lambda packed: _patched(packed, "stem.fake", 8, "<H", 1),
            "stem.fake is compressed or encrypted",
            id="locked",
        ),
        pytest.param(
            lambda packed: _patched(packed, "stem.fake", 8, "<H", 0x41), "compressed or encrypted", id="strongly locked"
        ),
        pytest.param(
            lambda packed: _patched(packed, "stem.fake", 8, "<H", 0x20), "stem.fake cannot be read", id="patch data"
        ),
        pytest.param(lambda packed: _patched(packed, "stem.fake", 10, "<H", 93), "compressed or encrypted", id="zstd"),
        pytest.param(
            lambda packed: _patched(packed, "stem.fake", 20, "<II", 1 << 30, 1 << 30),
            "stem.fake claims 1073741824 bytes",
            id="claims a gigabyte",
        ),
        pytest.param(
            lambda packed: _patched(packed, "stem.fake", 24, "<I", 1 << 20), "stem.fake claims", id="sizes differ"
        ),
        pytest.param(
            lambda packed: _patched(packed, "stem.fake", 16, "<I", 12345), "stem.fake cannot be read", id="wrong CRC"
        ),
        pytest.param(
            # Some versions of zipfile read nothing at all of a zip whose entries overlap.
            lambda packed: _patched(packed, "stem.fake", 42, "<I", 1),
            r"(stem\.fake|manifest\.json) cannot be read",
            id="wrong offset",
        ),
        pytest.param(
            lambda packed: _patched(packed, "stem.fake", 6, "<H", 99), "neither a bundle", id="version of tomorrow"
        ),
        pytest.param(_link, "stem.fake is a symbolic link", id="symbolic link"),
        pytest.param(lambda packed: _zip64_offset(packed, 1 << 40), "cannot be read", id="offset of a terabyte"),
        pytest.param(lambda packed: _zip64_offset(packed, (1 << 63) - 1), "cannot be read", id="offset 2^63-1"),
        pytest.param(lambda packed: _zip64_offset(packed, 1 << 63), "cannot be read", id="offset 2^63"),
        pytest.param(lambda packed: _named("~~~")(packed).replace(b"~~~", b"\0~~"), "'' would leave", id="no name"),
        pytest.param(lambda packed: _named("~~~")(packed).replace(b"~~~", b"\xe9~~"), "not listed", id="DOS name"),
        pytest.param(
            lambda packed: _named("é")(packed).replace("é".encode(), b"\xff\xff"), "neither a bundle", id="no UTF-8"
        ),
        pytest.param(lambda packed: packed[:-30], "neither a bundle", id="truncated at the end"),
        pytest.param(lambda packed: packed[: len(packed) // 2], "neither a bundle", id="half"),
        pytest.param(lambda packed: packed[:10], "neither a bundle", id="ten bytes"),
        pytest.param(lambda packed: packed[500:], "cannot be read|neither", id="beginning lost"),
        pytest.param(lambda packed: b"", "neither a bundle", id="empty file"),
        pytest.param(lambda packed: b"some text\n", "neither a bundle", id="text"),
        pytest.param(lambda packed: _zip([]), "has no manifest.json", id="zip of nothing"),
        pytest.param(lambda packed: _zip([("bundle.zip", packed)]), "has no manifest.json", id="zip of a zip"),
        pytest.param(
            lambda packed: _zip([(f"fake.paraedge/{name}", data) for name, data in _entries(packed).items()]),
            "has no manifest.json",
            id="zip of the folder",
        ),
    ],
)
def test_a_bad_zip_is_refused(tmp_path, packed, change, problem):
    path = tmp_path / "bad.zip"
    path.write_bytes(change(packed))
    before = tree(tmp_path)
    with pytest.raises(IntegrityError, match=problem) as caught:
        Bundle.open(path)
    assert str(path) in str(caught.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["manifest.json", "stem.fake", "branch_01.fake", "golden/images.npy"])
def test_a_zip_without_one_of_its_files_is_refused(tmp_path, packed, name):
    entries = _entries(packed)
    del entries[name]
    (tmp_path / "bad.zip").write_bytes(_zip(entries.items()))
    with pytest.raises(IntegrityError, match=name):
        Bundle.open(tmp_path / "bad.zip")


def test_a_zip_with_a_changed_file_is_refused(tmp_path, packed):
    entries = {**_entries(packed), "stem.fake": b"{ }"[:2]}
    (tmp_path / "bad.zip").write_bytes(_zip(entries.items()))
    with pytest.raises(IntegrityError, match=r"stem\.fake has SHA-256"):
        Bundle.open(tmp_path / "bad.zip")


def test_a_zip_made_by_hand_is_read_if_it_is_stored(tmp_path, packed):
    """With entries for the folders, in another order, with other times: as 'zip -0 -r' makes it."""
    entries = [(zipfile.ZipInfo("golden/", (2024, 5, 6, 7, 8, 10)), b""), *reversed(_entries(packed).items())]
    (tmp_path / "hand.zip").write_bytes(_zip(entries))
    assert Bundle.open(tmp_path / "hand.zip").manifest == Bundle.open(tmp_path / "packed.zip").manifest


def test_a_damaged_zip_never_ends_in_anything_but_a_bundle_error(tmp_path, packed):
    random_numbers = random.Random(5)
    directory = packed.index(b"PK\x01\x02")
    path = tmp_path / "damaged.zip"
    refused = 0
    for _ in range(400):
        raw = bytearray(packed)
        for _ in range(random_numbers.randint(1, 3)):
            place = random_numbers.randrange(random_numbers.choice([0, directory, len(raw) - 22]), len(raw))
            match random_numbers.randrange(4):
                case 0 | 1:
                    raw[place] = random_numbers.choice([0, 1, 0x7F, 0x80, 0xFF, random_numbers.randrange(256)])
                case 2:
                    raw[place : place + 4] = b"\xff\xff\xff\xff"
                case 3:
                    del raw[place : place + random_numbers.randint(1, 8)]
        path.write_bytes(raw)
        try:
            Bundle.open(path).golden()
        except BundleError:
            refused += 1
    assert refused > 200  # the others changed a time stamp, or nothing


def test_a_zip_replaced_after_it_was_opened_is_refused_not_believed(tmp_path, packed):
    path = tmp_path / "packed.zip"
    bundle = Bundle.open(path)
    path.write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"stem\.fake"):
        bundle.read(bundle.manifest.stem)
    path.unlink()
    with pytest.raises(IntegrityError, match=r"stem\.fake"):
        bundle.read(bundle.manifest.stem)


def test_a_folder_that_lost_its_manifest_says_so(tmp_path):
    fake_bundle(tmp_path / "b")
    (tmp_path / "b" / "manifest.json").rename(tmp_path / "b" / "Manifest.json")
    with pytest.raises(IntegrityError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path / "b")


def test_a_manifest_may_not_name_another_case_than_the_file_has(tmp_path):
    fake_bundle(tmp_path / "b")
    edit_manifest(tmp_path / "b", lambda document: document["stem"].update(file="STEM.fake"))
    with pytest.raises(IntegrityError, match=r"stem\.fake is not listed"):
        Bundle.open(tmp_path / "b")
