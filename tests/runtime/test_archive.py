"""A bundle as one zip: both readers take the same files, and refuse what is not exactly a list of stored files."""

import io
import random
import shutil
import stat
import struct
import subprocess
import zipfile
import zlib

import pytest
from support.bundles import EMBEDDING, MOTION, fake_bundle, sign, tree

from paraedge_runtime import Bundle, BundleError, IntegrityError
from paraedge_runtime.archive import MAX_FILES, write_zip
from paraedge_runtime.core import load_core

FILES = {"manifest.json": b"{}", "a": b"123", "sub/b": b""}
FIRST = "manifest.json"  # the first entry of a packed bundle
LAST = "stem.fake"  # and the last one


@pytest.fixture
def packed(tmp_path):
    """The bytes of a good bundle zip."""
    return fake_bundle(tmp_path / "packed.paraedge").pack(tmp_path / "packed.zip").read_bytes()


def _entries(packed):
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Entry:
    """One file of a zip and every field of its two headers, to be set to anything."""

    def __init__(self, name, data=b"", **fields):
        self.name = name.encode() if isinstance(name, str) else name
        self.data = data
        self.fields = {
            "made_by": 3 << 8 | 20,
            "version": 20,
            "flags": 0,
            "method": 0,
            "time": 0,
            "date": 0x21,
            "crc": zlib.crc32(data),
            "packed": len(data),
            "size": len(data),
            "extra": b"",
            "comment": b"",
            "disk": 0,
            "attributes": 0o644 << 16,
            "offset": None,
            "before": b"",  # bytes before the local header
            "after": b"",  # and after the data
            "local": {},  # what the local header says instead
        } | fields

    def local(self):
        one = self.fields | self.fields["local"]
        name = one.get("name", self.name)
        numbers = [one[key] for key in ("version", "flags", "method", "time", "date", "crc", "packed", "size")]
        return struct.pack("<4s5H3I2H", b"PK\3\4", *numbers, len(name), len(one["extra"])) + name + one["extra"]

    def central(self, offset):
        one = self.fields
        numbers = [one[key] for key in ("made_by", "version", "flags", "method", "time", "date")]
        numbers += [one[key] for key in ("crc", "packed", "size")]
        lengths = len(self.name), len(one["extra"]), len(one["comment"]), one["disk"], 0
        where = one["attributes"], offset if one["offset"] is None else one["offset"]
        record = struct.pack("<4s6H3I5H2I", b"PK\1\2", *numbers, *lengths, *where)
        return record + self.name + one["extra"] + one["comment"]


def _zip(entries, *, before_directory=b"", after_directory=b"", order=None, tail=b"", **end):
    """A zip of these entries; ``end`` are fields of its last record."""
    body, directory = b"", []
    for entry in entries:
        body += entry.fields["before"]
        directory.append(entry.central(len(body)))
        body += entry.local() + entry.data + entry.fields["after"]
    body += before_directory
    central = b"".join(directory if order is None else [directory[place] for place in order]) + after_directory
    fields = {
        "disk": 0,
        "directory_disk": 0,
        "on_disk": len(entries),
        "count": len(entries),
        "bytes": len(central),
        "offset": len(body),
        "comment": b"",
    } | end
    numbers = [fields[key] for key in ("disk", "directory_disk", "on_disk", "count", "bytes", "offset")]
    return (
        body + central + struct.pack("<4s4H2IH", b"PK\5\6", *numbers, len(fields["comment"])) + fields["comment"] + tail
    )


def _with(place=None, /, extra_entries=(), **options):
    """A change of a packed bundle: fields of the entry called ``place``, entries more, or fields of the end."""
    fields = options.pop("fields", {})

    def change(packed):
        entries = [Entry(name, data, **(fields if name == place else {})) for name, data in _entries(packed).items()]
        return _zip([*entries, *extra_entries], **options)

    return change


def _named(name, data=b"", **fields):
    return _with(extra_entries=[Entry(name, data, **fields)])


def _field(name, **fields):
    return _with(name, fields=fields)


def _local(place, /, **fields):
    return _field(place, local=fields)


def _without(name):
    def change(packed):
        return _zip([Entry(n, data) for n, data in _entries(packed).items() if n != name])

    return change


def _compressed(packed):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (_entries(packed) | {"stem.fake": bytes(20 << 20)}).items():
            archive.writestr(name, data)
    return stream.getvalue()


def _streamed(packed):
    """As a writer makes it that cannot go back: sizes follow the data, in descriptors."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _entries(packed).items():
            archive.writestr(name, data)
    return pipe.data


def _overlapping(packed):
    """Two names for the same bytes."""
    entries = [Entry(name, data) for name, data in _entries(packed).items()]
    twin = Entry("twin", b"", offset=0)
    return _zip([*entries, twin])


def _zip64(packed):
    """The last record says 'elsewhere', and a zip64 record before it says where."""
    entries = [Entry(name, data) for name, data in _entries(packed).items()]
    plain = _zip(entries)
    end = plain.rindex(b"PK\5\6")
    _, _, _, _, count, directory_bytes, offset, _ = struct.unpack("<4s4H2IH", plain[end:])
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, directory_bytes, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return plain[:end] + record + locator + last


NOT_PLAIN = "is not a plain path inside the bundle"
NO_BUNDLE = "is neither a bundle folder nor a zip made by 'paraedge pack'"

# id -> (change of a packed bundle, what the message says); the message of the native reader says it too.
REFUSED = {
    # names
    "climbs": (_named("../evil"), f"'../evil' {NOT_PLAIN}"),
    "climbs in the middle": (_named("golden/../../evil"), NOT_PLAIN),
    "absolute": (_named("/etc/passwd"), f"'/etc/passwd' {NOT_PLAIN}"),
    "drive": (_named("C:/evil"), NOT_PLAIN),
    "backslash": (_named("..\\evil"), NOT_PLAIN),
    "hidden": (_named("golden/.hidden"), NOT_PLAIN),
    "hidden folder": (_named("__MACOSX/"), NOT_PLAIN),
    "NUL": (_named("a\0b"), NOT_PLAIN),
    "NUL at the end": (_named("stem.fake\0"), NOT_PLAIN),
    "no name": (_named(""), f"'' {NOT_PLAIN}"),
    "only a slash": (_named("/"), NOT_PLAIN),
    "two slashes": (_named("golden//"), NOT_PLAIN),
    "no UTF-8": (_named(b"\xff\xff"), f"'\\xff\\xff' {NOT_PLAIN}"),
    "DOS name": (_named(b"\x82"), NOT_PLAIN),
    "UTF-8 name": (_named("é", flags=0x800), NOT_PLAIN),
    "long name": (_named("a" * 201), NOT_PLAIN),
    "longest name there is": (_named("a" * 0xFFFF), "directory is damaged"),
    "twice": (_named("stem.fake", b"{}"), "'stem.fake' is in the zip twice"),
    "twice but for case": (_named("STEM.fake"), "'STEM.fake' is in the zip twice"),
    "a file and a folder": (_named("stem.fake/"), "'stem.fake/' is in the zip twice"),
    "a folder twice": (_with(extra_entries=[Entry("a/"), Entry("a/")]), "'a/' is in the zip twice"),
    "unlisted": (_named("extra"), "extra is not listed in manifest.json"),
    "below a file": (_named("stem.fake/x"), "stem.fake/x is not listed in manifest.json"),
    "signature that is not listed": (_named("manifest.json.minisig"), "manifest.json.minisig is not listed"),
    "manifest missing": (_without("manifest.json"), "has no manifest.json"),
    "hash of the manifest missing": (_without("manifest.sha256"), "manifest.sha256 is missing"),
    "stem missing": (_without("stem.fake"), "stem.fake is missing"),
    "card missing": (_without("card.json"), "card.json is missing"),
    "golden missing": (_without("golden/inputs.npy"), "golden/inputs.npy is missing"),
    "zip of nothing": (lambda packed: _zip([]), "has no manifest.json"),
    "zip of a zip": (lambda packed: _zip([Entry("bundle.zip", packed)]), "has no manifest.json"),
    "zip of the folder": (
        lambda packed: _zip([Entry(f"fake.paraedge/{name}", data) for name, data in _entries(packed).items()]),
        "has no manifest.json",
    ),
    "a crowd": (
        lambda packed: _zip([Entry(f"{number:05d}") for number in range(MAX_FILES + 1)]),
        f"holds {MAX_FILES + 1} files, more than {MAX_FILES}",
    ),
    # kinds
    "compressed": (_compressed, "is compressed or encrypted; pack the bundle again with 'paraedge pack'"),
    "zstd": (_field(LAST, method=93), "'stem.fake' is compressed or encrypted"),
    "locked": (_field(LAST, flags=1), "'stem.fake' is compressed or encrypted"),
    "strongly locked": (_field(LAST, flags=0x41), "is compressed or encrypted"),
    "patch data": (_field(LAST, flags=0x20), "'stem.fake' needs a newer reader of zips"),
    "sizes after the data": (_streamed, "needs a newer reader of zips"),
    "sizes after the data, said only": (_field(LAST, flags=8), "needs a newer reader of zips"),
    "masked directory": (_field(LAST, flags=0x2000), "needs a newer reader of zips"),
    "version of tomorrow": (_field(LAST, version=99), "needs a newer reader of zips"),
    "version of zip64": (_field(LAST, version=45), "needs a newer reader of zips"),
    "symbolic link": (_field(LAST, attributes=(stat.S_IFLNK | 0o777) << 16), "'stem.fake' is a symbolic link"),
    "device": (_field(LAST, attributes=(stat.S_IFCHR | 0o666) << 16), "'stem.fake' is not a plain file"),
    "a file that says it is a folder": (_field(LAST, attributes=(stat.S_IFDIR | 0o755) << 16), "is not a plain file"),
    "a folder that says it is a file": (_named("a/", attributes=(stat.S_IFREG | 0o644) << 16), "is not a plain file"),
    "a folder with bytes": (_named("a/", b"x"), "'a/' is a folder with bytes in it"),
    "a folder with a checksum": (_named("a/", crc=1), "'a/' is a folder with bytes in it"),
    # more than is needed
    "extra field": (_field(LAST, extra=struct.pack("<HHI", 0x5455, 4, 0)), "has an extra field or a comment"),
    "extra field of zip64": (_field(LAST, extra=struct.pack("<HHQ", 1, 8, 2)), "has an extra field or a comment"),
    "extra field in the local header": (
        _local(LAST, extra=b"abcd"),
        "'stem.fake' is not what the zip's directory says",
    ),
    "comment of an entry": (_field(LAST, comment=b"hidden"), "has an extra field or a comment"),
    "comment of the zip": (_with(comment=b"hidden"), NO_BUNDLE),
    "bytes before the first entry": (_field(FIRST, before=b"#!/bin/sh\n"), "does not follow the entry before it"),
    "bytes between entries": (_field(LAST, before=b"hidden"), "'stem.fake' does not follow the entry before it"),
    "bytes after the last entry": (_field(LAST, after=b"hidden"), "bytes that belong to no file"),
    "bytes before the directory": (_with(before_directory=b"hidden"), "bytes that belong to no file"),
    "bytes in the directory": (_with(after_directory=b"hidden"), "bytes that belong to no file"),
    "an entry in the directory that does not count": (
        _with(after_directory=Entry("hidden").central(0)),
        "bytes that belong to no file",
    ),
    "bytes after the end": (_with(tail=b"hidden"), NO_BUNDLE),
    "bytes before everything": (lambda packed: b"hidden" + packed, NO_BUNDLE),
    "an entry nobody lists": (
        lambda packed: _zip([Entry(n, d) for n, d in _entries(packed).items()], before_directory=Entry("x").local()),
        "bytes that belong to no file",
    ),
    "directory in another order": (
        lambda packed: _zip([Entry(n, d) for n, d in _entries(packed).items()], order=[1, 0, 2, 3, 4, 5, 6, 7]),
        "does not follow the entry before it",
    ),
    "entries that overlap": (_overlapping, "'twin' does not follow the entry before it"),
    "zip64": (_zip64, NO_BUNDLE),
    # what is said twice must be the same
    "another name": (_local(LAST, name=b"stem.evil"), "is not what the zip's directory says"),
    "another name, longer": (_local(LAST, name=b"stem.fake.x"), "is not what the zip's directory says"),
    "another size": (_local(LAST, size=1), "is not what the zip's directory says"),
    "another packed size": (_local(LAST, packed=1), "is not what the zip's directory says"),
    "another method": (_local(LAST, method=8), "is not what the zip's directory says"),
    "other flags": (_local(LAST, flags=1), "is not what the zip's directory says"),
    "another checksum": (_local(LAST, crc=5), "is not what the zip's directory says"),
    "another time": (_local(LAST, time=5), "is not what the zip's directory says"),
    "another version": (_local(LAST, version=10), "is not what the zip's directory says"),
    # sizes and places
    "claims a gigabyte": (_field(LAST, size=1 << 30, packed=1 << 30), "'stem.fake' claims 1073741824 bytes of a"),
    "claims four gigabytes": (_field(LAST, size=0xFFFFFFFF, packed=0xFFFFFFFF), "'stem.fake' claims 4294967295 bytes"),
    "claims another packed size": (_field(LAST, size=5), "'stem.fake' claims 5 bytes in 2"),
    "wrong offset": (_field(LAST, offset=1), "'stem.fake' does not follow the entry before it"),
    "offset beyond the end": (_field(LAST, offset=0xFFFFFFFF), "'stem.fake' does not follow the entry before it"),
    "another disk": (_field(LAST, disk=1), "'stem.fake' has an extra field or a comment"),
    "manifest with a wrong checksum": (_field(FIRST, crc=12345), "manifest.json is damaged"),
    "end on another disk": (_with(disk=1), NO_BUNDLE),
    "directory on another disk": (_with(directory_disk=1), NO_BUNDLE),
    "entries on another disk": (_with(on_disk=3), NO_BUNDLE),
    "one entry fewer": (_with(count=8, on_disk=8), "bytes that belong to no file"),
    "one entry more": (_with(count=10, on_disk=10), "directory is damaged"),
    "no entries": (_with(count=0, on_disk=0), "directory is damaged"),
    "all entries there can be": (_with(count=0xFFFF, on_disk=0xFFFF), "holds 65535 files, more than 4096"),
    "directory elsewhere": (_with(offset=5), NO_BUNDLE),
    "directory nowhere": (_with(offset=0xFFFFFFFF), NO_BUNDLE),
    "directory longer": (_with(bytes=5000), NO_BUNDLE),
    "directory of everything": (
        lambda packed: packed[:-10] + struct.pack("<IIH", len(packed) - 22, 0, 0),
        "directory is damaged",
    ),
    "directory damaged": (lambda packed: packed.replace(b"PK\1\2", b"PK\1\3", 1), "directory is damaged"),
    "entry damaged": (lambda packed: packed.replace(b"PK\3\4", b"PK\3\5", 1), "is not what the zip's directory says"),
    # no zips
    "truncated at the end": (lambda packed: packed[:-30], NO_BUNDLE),
    "one byte short": (lambda packed: packed[:-1], NO_BUNDLE),
    "half": (lambda packed: packed[: len(packed) // 2], NO_BUNDLE),
    "ten bytes": (lambda packed: packed[:10], NO_BUNDLE),
    "beginning lost": (lambda packed: packed[500:], NO_BUNDLE),
    "empty file": (lambda packed: b"", NO_BUNDLE),
    "text": (lambda packed: b"some text\n" * 99, NO_BUNDLE),
    "only an end": (lambda packed: packed[-22:], NO_BUNDLE),
    # files
    "a changed file": (lambda packed: packed.replace(b'{"add": 2.0}', b'{"add": 9.0}', 1), "has SHA-256"),
    "a manifest that is none": (
        lambda packed: _zip([Entry(n, b"{}" if n == FIRST else d) for n, d in _entries(packed).items()]),
        "manifest.json",
    ),
}


@pytest.mark.parametrize(("change", "problem"), REFUSED.values(), ids=REFUSED)
def test_both_readers_refuse(tmp_path, packed, change, problem):
    path = tmp_path / "bad.zip"
    path.write_bytes(change(packed))
    before = tree(tmp_path)
    for open_it in (Bundle.open, load_core().check_bundle):
        with pytest.raises(BundleError) as caught:
            open_it(str(path))
        assert problem in str(caught.value)
        assert problem == "manifest.json" or str(path) in str(caught.value)
    assert tree(tmp_path) == before


# id -> change that leaves the bundle what it is
ACCEPTED = {
    "as it is": lambda packed: packed,
    "written again": _with(),
    "another order": lambda packed: _zip([Entry(n, d) for n, d in reversed(_entries(packed).items())]),
    "other times": lambda packed: _zip([Entry(n, d, time=99, date=0x5678) for n, d in _entries(packed).items()]),
    "of an older writer": lambda packed: _zip(
        [Entry(n, d, version=10, made_by=20) for n, d in _entries(packed).items()]
    ),
    "names in UTF-8": lambda packed: _zip([Entry(n, d, flags=0x800) for n, d in _entries(packed).items()]),
    "plain files": lambda packed: _zip([Entry(n, d, attributes=0o100600 << 16) for n, d in _entries(packed).items()]),
    "of a system without modes": lambda packed: _zip(
        [Entry(n, d, attributes=0x20) for n, d in _entries(packed).items()]
    ),
    "with its folder": _named("golden/", attributes=0o40755 << 16 | 0x10),
    "with a folder that is empty": _named("empty/"),
    "a program with another checksum": _field(LAST, crc=12345),  # it has a SHA-256
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("kind", ["labels", "vectors", "signed"])
def test_both_readers_accept(tmp_path, kind, change):
    kinds = {"input": MOTION, "output": EMBEDDING} if kind == "vectors" else {}
    bundle = fake_bundle(tmp_path / "packed.paraedge", **kinds)
    if kind == "signed":
        sign(bundle.path)
        bundle = Bundle.open(bundle.path)
    path = tmp_path / "changed.zip"
    path.write_bytes(change(bundle.pack(tmp_path / "packed.zip").read_bytes()))
    assert Bundle.open(path).files() == bundle.files()
    load_core().check_bundle(str(path))


@pytest.mark.skipif(shutil.which("zip") is None, reason="the program 'zip' is not installed")
def test_a_zip_made_by_hand_is_read(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    subprocess.run(["zip", "-q", "-X", "-0", "-r", "../hand.zip", "."], cwd=bundle.path, check=True)
    assert Bundle.open(tmp_path / "hand.zip").files() == bundle.files()
    load_core().check_bundle(str(tmp_path / "hand.zip"))


def _damage(raw, numbers, directory):
    """One to three changes, as likely in the directory and the last record as in the files."""
    for _ in range(numbers.randint(1, 3)):
        place = numbers.randrange(numbers.choice([0, directory, len(raw) - 22]), len(raw))
        match numbers.randrange(5):
            case 0 | 1:
                raw[place] = numbers.choice([0, 1, 0x7F, 0x80, 0xFF, numbers.randrange(256)])
            case 2:
                raw[place : place + 4] = b"\xff\xff\xff\xff"
            case 3:
                del raw[place : place + numbers.randint(1, 8)]
            case 4:
                start = numbers.randrange(len(raw))
                raw[place:place] = raw[start : start + numbers.randint(1, 60)]


def test_both_readers_say_the_same_of_a_damaged_zip(tmp_path, packed):
    numbers = random.Random(5)
    directory = packed.index(b"PK\x01\x02")
    path = tmp_path / "damaged.zip"
    refused = 0
    for _ in range(1500):
        raw = bytearray(packed)
        _damage(raw, numbers, directory)
        path.write_bytes(raw)
        try:
            Bundle.open(path)
        except BundleError:
            refused += 1
            with pytest.raises(BundleError):
                load_core().check_bundle(str(path))
        else:
            load_core().check_bundle(str(path))
    assert 800 < refused < 1500  # the others changed a time stamp, or nothing


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


def test_a_zip_replaced_after_it_was_opened_is_refused_not_believed(tmp_path, packed):
    path = tmp_path / "packed.zip"
    bundle = Bundle.open(path)
    path.write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"golden/inputs\.npy|card\.json"):
        bundle.golden()
    path.unlink()
    with pytest.raises(IntegrityError, match=r"card\.json is missing"):
        _ = bundle.card
    assert bundle.program(bundle.manifest.stem) == b"{}"
