"""Signatures: what a device with trusted keys opens and what it refuses, in Python, without the core, and in C."""

import base64
import json
import os
import re
import time

import pytest
from support.bundles import edit_card, edit_manifest, fake_bundle, hash_line, replace_file, tree, write_manifest
from support.keys import KEY_ID, PUBLIC, private_key, signed, write_keys

from paraedge.signing import sign_bundle, sign_manifest
from paraedge_runtime import Bundle, InputError, IntegrityError, ParaEdgeError, Session, signature
from paraedge_runtime.core import load_core
from paraedge_runtime.signature import TRUSTED_KEYS_VARIABLE, check_signature, read_trusted_keys
from paraedge_runtime.update import apply_update, write_update

SIGNATURE = "manifest.json.minisig"
# Of the manifest below, by the key 'release': minisign -S -W -m manifest.json, version 0.11 of Debian 12.
MANIFEST = b'{"a":1}\n'
BY_MINISIGN = b"""untrusted comment: signature from minisign secret key
RUSqmeO2r707AQI5JXfB0WNpZPe/R9/2clmopKAZPVyGWr5cuXPIBsXhYldrvuL/LlGaElGWEnFx7MJrols6rAcgoP3iyrbSkgQ=
trusted comment: timestamp:1795777125\tfile:manifest.json\thashed
F1XciCkoZHBeFNXiztfd/eW1F9CXKFgIs4PiHve3XluFSFC3kjFrd7lNh3d2muwgtg+Fhud55uPoR2LQy4CZAA==
"""


@pytest.fixture
def keys(tmp_path):
    return write_keys(tmp_path / "keys")


@pytest.fixture
def path(tmp_path, keys):
    return signed(fake_bundle(tmp_path / "b.paraedge"), keys).path


def _without_core(path, trusted_keys, monkeypatch):
    monkeypatch.setattr(signature, "_ed25519_check", signature._ed25519_check_without_core)
    Bundle.open(path, trusted_keys=trusted_keys)


def _in_c(path, trusted_keys, monkeypatch):
    assert isinstance(trusted_keys, str | os.PathLike)
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, os.fspath(trusted_keys))
    load_core().check_bundle(str(path))


READERS = {
    "python": lambda path, trusted_keys, monkeypatch: Bundle.open(path, trusted_keys=trusted_keys),
    "without-core": _without_core,
    "c": _in_c,
}


@pytest.fixture(params=READERS)
def open_with(request, monkeypatch):
    """Opens a bundle with trusted keys, by one of the readers."""
    return lambda path, trusted_keys: READERS[request.param](path, trusted_keys, monkeypatch)


def packed(path):
    """The same files as a zip, whatever is wrong with them."""
    from paraedge_runtime.archive import write_zip

    files = {name: data for name, data in tree(path).items() if isinstance(data, bytes)}
    write_zip(files, path.with_suffix(".zip"))
    return path.with_suffix(".zip")


def sign_again(path, keys, name="release", expires_s=None):
    data = sign_manifest((path / "manifest.json").read_bytes(), [private_key(keys, name)], 1000, expires_s)
    (path / SIGNATURE).write_bytes(data)


# What minisign wrote -----------------------------------------------------------------------------


def test_minisign_and_we_write_the_same_signature(keys):
    seconds = int(re.search(rb"timestamp:(\d+)", BY_MINISIGN)[1])
    assert sign_manifest(MANIFEST, [private_key(keys, "release")], seconds) == BY_MINISIGN


def test_a_signature_of_minisign_is_taken(keys, tmp_path):
    assert check_signature(tmp_path, MANIFEST, BY_MINISIGN, read_trusted_keys(keys)) == KEY_ID["release"]


@pytest.mark.parametrize("name", PUBLIC)
def test_keys_have_the_name_and_the_text_that_minisign_gives_them(keys, name):
    (key,) = read_trusted_keys(keys / f"{name}.pub")
    assert (key.name, key.text) == (KEY_ID[name], PUBLIC[name])


# What is opened ----------------------------------------------------------------------------------


@pytest.mark.parametrize("trusted", ["release.pub", ".", "text"])
@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_what_a_trusted_key_signed_is_opened(path, keys, open_with, trusted, pack):
    open_with(packed(path) if pack else path, PUBLIC["release"] if trusted == "text" else keys / trusted)


@pytest.mark.parametrize("signers", [("release", "next"), ("stranger", "release"), ("release",)])
def test_one_trusted_signer_is_enough(tmp_path, keys, open_with, signers):
    bundle = signed(fake_bundle(tmp_path / "two.paraedge"), keys, *signers)
    open_with(bundle.path, keys / "release.pub")


def test_a_key_that_is_taken_out_of_the_folder_is_trusted_no_more(path, keys, open_with):
    open_with(path, keys)
    (keys / "release.pub").unlink()
    with pytest.raises(IntegrityError, match=f"is signed by {KEY_ID['release']}, which is not among the trusted keys"):
        open_with(path, keys)


def test_keys_are_changed_by_signing_with_both(tmp_path, keys, open_with):
    """Rotation: a bundle of both keys is opened before and after a device gets the new one."""
    bundle = signed(fake_bundle(tmp_path / "b.paraedge"), keys, "release", "next")
    for device in ("release.pub", ".", "next.pub"):
        open_with(bundle.path, keys / device)
    sign_bundle(bundle.path, [private_key(keys, "next")])
    open_with(bundle.path, keys / "next.pub")
    with pytest.raises(IntegrityError, match="not among the trusted keys"):
        open_with(bundle.path, keys / "release.pub")


def test_a_signature_ends_when_its_signer_said(path, keys, open_with, monkeypatch):
    now_s = int(time.time())
    sign_again(path, keys, expires_s=now_s + 3600)
    open_with(path, keys)
    sign_again(path, keys, expires_s=now_s - 1)
    with pytest.raises(IntegrityError, match=rf"of key {KEY_ID['release']} ended on 2\d\d\d-\d\d-\d\d; take a newer"):
        open_with(path, keys)
    monkeypatch.delenv(TRUSTED_KEYS_VARIABLE, raising=False)
    Bundle.open(path)  # without trusted keys nobody asks


def test_without_trusted_keys_signed_and_unsigned_are_opened(tmp_path, path, keys):
    bundle = Bundle.open(path)
    assert bundle.signed_by is None
    assert Bundle.open(path, trusted_keys=keys).signed_by == KEY_ID["release"]
    assert Bundle.open(fake_bundle(tmp_path / "u.paraedge").path).signed_by is None


# What is refused ---------------------------------------------------------------------------------


def _block(path, edit):
    """Change one of the four lines: ``edit`` gets and returns them without their ends."""
    lines = (path / SIGNATURE).read_bytes().split(b"\n")
    (path / SIGNATURE).write_bytes(b"\n".join(edit(lines)))


def _in_line(number, before, after):
    def edit(lines):
        assert before in lines[number]
        lines[number] = lines[number].replace(before, after, 1)
        return lines

    return lambda path, keys: _block(path, edit)


def _recoded(number, change):
    """Change the bytes behind the base64 of a line."""

    def edit(lines):
        lines[number] = base64.b64encode(change(base64.b64decode(lines[number])))
        return lines

    return lambda path, keys: _block(path, edit)


def _unsigned(path, keys):
    edit_manifest(path, lambda document: document.update(signature=None))
    (path / SIGNATURE).unlink()


def _of_another_bundle(path, keys):
    other = signed(fake_bundle(path.with_name("other.paraedge"), [{"add": 9.0}]), keys)
    (path / SIGNATURE).write_bytes((other.path / SIGNATURE).read_bytes())


def _spelled_otherwise(path, keys):
    """The same bytes: the last letter before the padding has bits of no byte."""

    def edit(lines):
        assert lines[3].endswith(b"==")
        letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        place = letters.index(lines[3][85:86])
        lines[3] = lines[3][:85] + letters[place | 1 : (place | 1) + 1] + b"=="
        assert base64.b64decode(lines[3])
        return lines

    _block(path, edit)


REFUSED = {
    "unsigned": (_unsigned, "is not signed, and trusted keys are set"),
    "an empty signature": (lambda path, keys: (path / SIGNATURE).write_bytes(b""), "is not signed"),
    "a signature that is gone": (lambda path, keys: (path / SIGNATURE).unlink(), "is not signed"),
    "a stranger's": (lambda path, keys: sign_again(path, keys, "stranger"), "which is not among the trusted keys"),
    "a later version": (
        lambda path, keys: edit_manifest(path, lambda document: document.update(version=7)),
        "does not match manifest.json",
    ),
    "labels in another order": (
        lambda path, keys: edit_manifest(path, lambda document: document["output"]["labels"].reverse()),
        "does not match manifest.json",
    ),
    "another program, its hash agrees": (
        lambda path, keys: replace_file(path, "branch_01.fake", b'{"add": 8.0}'),
        "does not match manifest.json",
    ),
    "another card, its hash agrees": (
        lambda path, keys: edit_card(path, lambda card: card.update(license="none")),
        "does not match manifest.json",
    ),
    "another card": (lambda path, keys: (path / "card.json").write_bytes(b"{}"), "card.json has 2 bytes"),
    "a space more": (
        lambda path, keys: write_manifest(path, (path / "manifest.json").read_bytes() + b" "),
        "does not match manifest.json",
    ),
    "of another bundle": (_of_another_bundle, "does not match manifest.json"),
    "another trusted comment": (_in_line(2, b"timestamp:1", b"timestamp:2"), "does not match manifest.json"),
    "an end that was added": (_in_line(2, b"hashed", b"hashed\texpires:99999999999"), "does not match manifest.json"),
    "another key's id": (
        _recoded(1, lambda data: data[:2] + bytes.fromhex(KEY_ID["next"])[::-1] + data[10:]),
        f"signature of key {KEY_ID['next']} does not match manifest.json",
    ),
    "not prehashed": (_recoded(1, lambda data: b"Ed" + data[2:]), "is damaged or not in minisign's format"),
    "another algorithm": (_recoded(1, lambda data: b"XX" + data[2:]), "is damaged or not in minisign"),
    "a short signature": (_recoded(1, lambda data: data[:-1]), "is damaged or not in minisign"),
    "a long signature": (_recoded(3, lambda data: data + b"x"), "is damaged or not in minisign"),
    "its second half zero": (_recoded(3, lambda data: bytes(64)), "does not match manifest.json"),
    "base64 spelled otherwise": (_spelled_otherwise, "is damaged or not in minisign"),
    "no end of the last line": (
        lambda path, keys: _block(path, lambda lines: lines[:4]),
        "is damaged or not in minisign",
    ),
    "a line more": (lambda path, keys: _block(path, lambda lines: [*lines, b""]), "is damaged or not in minisign"),
    "text behind it": (
        lambda path, keys: _block(path, lambda lines: [*lines[:4], b"more"]),
        "is damaged or not in minisign",
    ),
    "half a block behind it": (
        lambda path, keys: _block(path, lambda lines: [*lines[:4], *lines[:2], b""]),
        "is damaged or not in minisign",
    ),
    "a line less": (lambda path, keys: _block(path, lambda lines: lines[1:]), "is damaged or not in minisign"),
    "lines of Windows": (
        lambda path, keys: _block(path, lambda lines: [b"\r".join([x, b""]) for x in lines]),
        "is damaged or not in minisign",
    ),
    "a control character": (
        _in_line(0, b"untrusted comment: ", b"untrusted comment: \x1b[31m"),
        "is damaged or not in minisign",
    ),
    "a zero": (_in_line(2, b"hashed", b"hash\0ed"), "is damaged or not in minisign"),
    "no comment": (_in_line(0, b"untrusted comment: ", b"comment: "), "is damaged or not in minisign"),
    "no trusted comment": (_in_line(2, b"trusted comment: ", b"untrusted comment: "), "is damaged or not in minisign"),
    "an end that is no number": (_in_line(2, b"hashed", b"hashed\texpires:never"), "is damaged or not in minisign"),
    "an end that is empty": (_in_line(2, b"hashed", b"hashed\texpires:"), "is damaged or not in minisign"),
    "an end of 13 digits": (_in_line(2, b"hashed", b"hashed\texpires:1000000000000"), "is damaged or not in minisign"),
    "two ends": (_in_line(2, b"hashed", b"expires:99999999999\texpires:99999999999"), "is damaged or not in minisign"),
    "too long": (lambda path, keys: (path / SIGNATURE).write_bytes(b"untrusted comment: " + b"x" * 5000), "5019 bytes"),
    "a right one and a wrong one": (
        lambda path, keys: (path / SIGNATURE).write_bytes(
            (path / SIGNATURE).read_bytes() + sign_manifest(b"another", [private_key(keys, "next")], 1000)
        ),
        f"signature of key {KEY_ID['next']} does not match manifest.json",
    ),
}


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_trusted_key_signed_is_refused(path, keys, open_with, damage, message, pack):
    write_keys(keys)
    (keys / "stranger.pub").unlink()
    damage(path, keys)
    (keys / "stranger.pub").unlink(missing_ok=True)
    with pytest.raises(IntegrityError, match=re.escape(message)):
        open_with(packed(path) if pack else path, keys)


def test_every_byte_of_a_signature_but_the_untrusted_comment_counts(path, keys, monkeypatch):
    """Each byte changed, left out, and doubled: both readers take it only where nobody reads it."""
    good = (path / SIGNATURE).read_bytes()
    comment = range(len("untrusted comment: "), good.index(b"\n"))
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(keys / "release.pub"))
    check_bundle = load_core().check_bundle
    for place, byte in enumerate(good):
        for bad in (
            good[:place] + bytes([byte ^ 1]) + good[place + 1 :],
            good[:place] + good[place + 1 :],
            good[:place] + bytes([byte]) + good[place:],
        ):
            (path / SIGNATURE).write_bytes(bad)
            for reader in (Bundle.open, lambda path: check_bundle(str(path))):
                if place in comment:
                    reader(path)
                    continue
                if bad == good or (bad[: place + 1] == good[: place + 1] and place + 1 in comment):
                    continue
                with pytest.raises(IntegrityError):
                    reader(path)
    (path / SIGNATURE).write_bytes(good)
    Bundle.open(path)


def test_every_bit_of_a_signed_manifest_counts(path, keys, monkeypatch):
    good, (key, *_) = (path / "manifest.json").read_bytes(), read_trusted_keys(keys / "release.pub")
    data = (path / SIGNATURE).read_bytes()
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(keys / "release.pub"))
    check_bundle = load_core().check_bundle
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        with pytest.raises(IntegrityError, match="does not match"):
            check_signature(path, bytes(bad), data, [key])
        write_manifest(path, bytes(bad))
        with pytest.raises(IntegrityError, match="does not match"):
            check_bundle(str(path))


def test_nothing_of_an_unsigned_manifest_is_parsed(path, keys, open_with):
    write_manifest(path, b"\xff{{{")
    with pytest.raises(IntegrityError, match="does not match"):
        open_with(path, keys)


# Which keys are trusted --------------------------------------------------------------------------


def _folder_of(text):
    def make(place):
        place.mkdir()
        (place / "a.pub").write_text(text)
        (place / "a.key").write_text("not looked at")
        return place

    return make


def _file_of(text):
    def make(place):
        place.write_text(text)
        return place

    return make


def _empty_folder(place):
    place.mkdir()
    (place / "release.key").write_text("not looked at")
    return place


def _pipe(place):
    os.mkfifo(place)
    return place


def _many(place):
    place.mkdir()
    for number in range(101):
        (place / f"{number}.pub").write_text(f"untrusted comment: x\n{PUBLIC['release']}\n")
    return place


NO_KEYS = {
    "nothing there": (lambda place: place, "cannot be read: No such file or directory"),
    "an empty folder": (_empty_folder, r"has no key \(\*\.pub\)"),
    "an empty file": (_file_of(""), "is not a public key"),
    "a private key": (_file_of("untrusted comment: x\nRWQAAEIy\n"), "is not a public key"),
    "a signature": (_file_of("untrusted comment: x\n" + "RUS" + "A" * 53 + "\n"), "is not a public key"),
    "three lines": (_file_of(f"untrusted comment: x\n{PUBLIC['release']}\nmore\n"), "is not a public key"),
    "no comment": (_file_of(f"{PUBLIC['release']}\n"), "is not a public key"),
    "too long": (_file_of(f"untrusted comment: {'x' * 5000}\n{PUBLIC['release']}\n"), "is not a public key"),
    "a folder with a damaged key": (_folder_of("x"), r"a\.pub is not a public key"),
    "a name that is not UTF-8": (lambda place: place.with_name("\udcff.pub"), "cannot be read: No such file"),
    "a name that no file can have": (lambda place: place / ("x" * 5000), "(no file can have that name|too long)"),
    "a pipe": (_pipe, "cannot be read: It is not a plain file"),
    "too many": (_many, "has more than 100 keys"),
}


@pytest.mark.parametrize(("make", "message"), NO_KEYS.values(), ids=NO_KEYS)
def test_keys_that_cannot_be_trusted_open_nothing(tmp_path, path, open_with, make, message):
    with pytest.raises(InputError, match=message):
        open_with(path, make(tmp_path / "place"))


@pytest.mark.parametrize("text", ["RW" + "A" * 54, PUBLIC["release"][:-1] + "!"])
def test_a_text_that_is_no_key_opens_nothing(path, open_with, text):
    with pytest.raises(InputError, match="is not a public key"):
        open_with(path, text)


@pytest.mark.parametrize("given", [(), [], [""], b"x", [b"x"], "a\0b"])
def test_no_key_is_not_every_key(path, given):
    with pytest.raises((InputError, TypeError)):
        Bundle.open(path, trusted_keys=given)


def test_an_empty_variable_is_no_permission(tmp_path, path, open_with, monkeypatch):
    for open_it in (Bundle.open, lambda path: load_core().check_bundle(str(path))):
        monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, "")
        with pytest.raises(InputError, match="PARAEDGE_TRUSTED_KEYS is empty; name a public key"):
            open_it(path)


def test_the_environment_decides_where_no_keys_are_passed(tmp_path, path, keys, monkeypatch):
    unsigned = fake_bundle(tmp_path / "u.paraedge").path
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(keys / "release.pub"))
    assert Bundle.open(path).signed_by == KEY_ID["release"]
    with pytest.raises(IntegrityError, match="is not signed"):
        Bundle.open(unsigned)
    with pytest.raises(IntegrityError, match="is signed by"):
        Bundle.open(path, trusted_keys=keys / "next.pub")
    assert Bundle.open_untrusted(unsigned).signed_by is None


def test_several_places_are_named_in_python(path, keys):
    assert Bundle.open(path, trusted_keys=[PUBLIC["next"], keys / "release.pub"]).signed_by == KEY_ID["release"]


# Who else opens bundles --------------------------------------------------------------------------


def test_a_session_opens_what_a_trusted_key_signed(tmp_path, path, keys, fake_engine):
    unsigned = fake_bundle(tmp_path / "u.paraedge").path
    with Session.open(path, trusted_keys=keys) as session:
        assert session.bundle.signed_by == KEY_ID["release"]
    with pytest.raises(IntegrityError, match="is not signed"):
        Session.open(unsigned, trusted_keys=keys)
    with pytest.raises(InputError, match=r"pass them to Bundle\.open"):
        Session.open(Bundle.open(path), trusted_keys=keys)


def test_what_is_made_on_a_device_with_keys_is_unsigned_until_it_is_signed(tmp_path, path, keys, monkeypatch):
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(keys))
    smaller = Bundle.open(path).subset([0], tmp_path / "small.paraedge")
    assert smaller.signature_bytes is None
    with pytest.raises(IntegrityError, match="is not signed"):
        Bundle.open(smaller.path)
    fake_bundle(smaller.path)  # what is replaced may be unsigned
    assert signed(smaller, keys).signed_by == KEY_ID["release"]
    assert Bundle.open(Bundle.open(path).pack(tmp_path / "p.zip")).signed_by == KEY_ID["release"]


OLD, NEW = [{"add": 1.0}, {"add": 2.0}], [{"add": 1.0}, {"add": 2.0}, {"add": 3.0}]


@pytest.fixture
def old(tmp_path, keys):
    return signed(fake_bundle(tmp_path / "old.paraedge", OLD, version=5), keys)


def _update(tmp_path, keys, old, version=6, signers=("release",), base=None):
    new = fake_bundle(tmp_path / f"new-{version}.paraedge", NEW, version=version)
    if signers:
        new = signed(new, keys, *signers)
    write_update(base or old, new, tmp_path / "u.zip")
    return tmp_path / "u.zip"


def _changed(name, change):
    """An update whose file of this name is another; the zip itself is right."""

    def make(tmp_path, keys, old):
        import zipfile

        from paraedge_runtime.archive import write_zip

        update = _update(tmp_path, keys, old)
        with zipfile.ZipFile(update) as archive:
            files = {entry: archive.read(entry) for entry in archive.namelist()}
        files[name] = change(files[name])
        files["manifest.sha256"] = hash_line(files["manifest.json"])
        write_zip(files, update)
        return update

    return make


def _set(field, value):
    return lambda data: json.dumps(json.loads(data) | {field: value}).encode()


BAD_UPDATES = {
    "unsigned": (lambda *a: _update(*a, signers=()), IntegrityError, "is not signed"),
    "by a stranger": (lambda *a: _update(*a, signers=("stranger",)), IntegrityError, "not among the trusted keys"),
    "older": (lambda *a: _update(*a, version=4), InputError, "is a downgrade from version 5 to 4"),
    "for another bundle": (
        lambda tmp_path, keys, old: _update(
            tmp_path, keys, old, base=signed(fake_bundle(tmp_path / "base.paraedge", [{"add": 7.0}]), keys)
        ),
        IntegrityError,
        "was made for the bundle",
    ),
    "older, with a higher version written into it": (
        _changed("manifest.json", _set("version", 99)),
        IntegrityError,
        "does not match manifest.json",
    ),
    "reversed labels": (
        _changed("manifest.json", _set("output", {"kind": "labels", "labels": ["cat", "bee", "ant"]})),
        IntegrityError,
        "does not match manifest.json",
    ),
    "another program": (_changed("branch_02.fake", lambda data: data[::-1]), IntegrityError, "has SHA-256"),
    "another signature": (
        _changed(SIGNATURE, lambda data: data[:-9] + data[-8:]),
        IntegrityError,
        "is damaged or not in minisign",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD_UPDATES.values(), ids=BAD_UPDATES)
def test_an_update_that_no_trusted_key_signed_changes_nothing(tmp_path, keys, old, make, error, message):
    update = make(tmp_path, keys, old)
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "release.pub").write_bytes((keys / "release.pub").read_bytes())
    before = tree(tmp_path)
    with pytest.raises(error, match=message):
        apply_update(old, update, old.path, trusted_keys=trusted)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("by_environment", [False, True])
def test_an_update_that_a_trusted_key_signed_is_applied(tmp_path, keys, old, monkeypatch, by_environment):
    if by_environment:
        monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(keys / "release.pub"))
    trusted_keys = None if by_environment else keys / "release.pub"
    applied = apply_update(old, _update(tmp_path, keys, old), old.path, trusted_keys=trusted_keys)
    assert (applied.signed_by, applied.manifest.version) == (KEY_ID["release"], 6)
    older = apply_update(
        applied,
        _update(tmp_path, keys, applied, version=3),
        old.path,
        trusted_keys=trusted_keys,
        allow_downgrade=True,
    )
    assert (older.signed_by, older.manifest.version) == (KEY_ID["release"], 3)


def test_where_neither_core_nor_cryptography_is_installed_nothing_signed_is_believed(path, keys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "paraedge_runtime._native", None)
    monkeypatch.delattr("paraedge_runtime._native", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ParaEdgeError, match=r"pip install 'paraedge\[sign\]'"):
        Bundle.open(path, trusted_keys=keys)
