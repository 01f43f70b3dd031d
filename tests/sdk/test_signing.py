"""Keys and signing: files of minisign's kind, never overwritten, and the commands keygen, sign, verify --key."""

import importlib
import inspect
import json
import os
import shutil
import signal
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.bundles import fake_bundle, tree
from support.keys import KEY_ID, private_key, signed, write_keys

from paraedge import signing
from paraedge.cli.main import COMMANDS, paraedge
from paraedge.signing import make_keys, read_private_key, sign_bundle
from paraedge_runtime import Bundle, BundleError, InputError, IntegrityError, atomic
from paraedge_runtime.signature import read_public_key

# Made by minisign 0.11 with the password 'hunter2'.
ENCRYPTED = (
    "untrusted comment: minisign encrypted secret key\n"
    "RWRTY0IyOQzFDgIUbIuU0k6hECK4BFVgsM1TQ8/hAkWmPl1ItoUAAAACAAAAAAAAAEAAAAAAN5TOckrnVl1Gl0+aKZspcSwQOWXZ3NjAP1kB9vlgftpK+aF0"
    "m1zvcxFBqgNV7RLsxhuNvUPaK6bBZZUPJ+xm9nsvmYLurs4uN0ysbJXLCCR5fww5VrOzex4bwdQ1cqm0DTKauX1iVEA=\n"
)
ENCRYPTED_PUBLIC = "RWRJc/vlipd7gsux793qSndFJgmWDeh+aT0aYW2q+GOyOcYMQWGokWC8"


@pytest.fixture
def quick_passwords(monkeypatch):
    """One MiB instead of minisign's GiB."""
    monkeypatch.setattr(signing, "_WORK", 1 << 15)
    monkeypatch.setattr(signing, "_MEMORY_BYTES", 1 << 20)


def asked():
    raise AssertionError("there is no password")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_private_key_is_for_its_owner_only(tmp_path, umask):
    before = os.umask(umask)
    try:
        public = make_keys(tmp_path / "release", None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600
    assert read_public_key(tmp_path / "release.pub") == public
    private = read_private_key(tmp_path / "release.key", asked)
    assert private.public == public
    assert public.name in repr(private)
    assert private.seed.hex() not in repr(private)
    assert "seed" not in repr(private)


@pytest.mark.parametrize("there", ["release.key", "release.pub"])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_key_is_never_overwritten(tmp_path, there, is_link):
    if is_link:
        (tmp_path / there).symlink_to("nowhere")
    else:
        (tmp_path / there).write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=rf"{there} exists, and a key is never overwritten"):
        make_keys(tmp_path / "release", None)
    assert tree(tmp_path) == before


def test_keys_that_cannot_be_written_leave_nothing(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        make_keys(tmp_path / "no" / "release", None)
    assert tree(tmp_path) == {}


_CALLS = ("open", "mkdir", "rename", "replace", "unlink", "fsync")


def _killed_at(moment, name):
    """Make keys in a process that dies before that call, of those that change files; how it ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0

    def dying(call):
        def counted(*arguments, **settings):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **settings)

        return counted

    for call in _CALLS:
        setattr(os, call, dying(getattr(os, call)))
    atomic._appear = dying(atomic._appear)
    try:
        make_keys(name, None)
    finally:
        os._exit(0)


# JAX, which other tests of this process may have imported, warns of every fork.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_keygen_killed_at_any_call_leaves_no_half_of_a_key(tmp_path):
    for moment in range(1, 100):
        folder = tmp_path / str(moment)
        folder.mkdir()
        status = _killed_at(moment, folder / "release")
        private = [path for path in folder.iterdir() if b"secret" in path.read_bytes()]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
        if (folder / "release.pub").exists():
            public = read_public_key(folder / "release.pub")
            if (folder / "release.key").exists():
                assert read_private_key(folder / "release.key", asked).public == public
        else:
            assert not (folder / "release.key").exists()
            make_keys(folder / "release", None)  # nothing is in the way, and nothing is left over
            assert set(tree(folder)) == {"release.key", "release.pub"}
        if not os.WIFSIGNALED(status):
            break
    assert 8 < moment < 99


def test_every_pair_is_another(tmp_path):
    assert make_keys(tmp_path / "a", None).key != make_keys(tmp_path / "b", None).key


@pytest.mark.usefixtures("quick_passwords")
def test_a_password_encrypts(tmp_path):
    public = make_keys(tmp_path / "release", "pässword")
    assert read_private_key(tmp_path / "release.key", lambda: "pässword").public == public
    with pytest.raises(InputError, match=r"the password of .*release\.key is wrong, or the file is damaged"):
        read_private_key(tmp_path / "release.key", lambda: "password")
    with pytest.raises(InputError, match="the password is empty"):
        make_keys(tmp_path / "other", "")


@pytest.mark.slow
def test_an_encrypted_key_of_minisign_is_read(tmp_path):
    (tmp_path / "m.key").write_text(ENCRYPTED)
    assert read_private_key(tmp_path / "m.key", lambda: "hunter2").public.text == ENCRYPTED_PUBLIC


def _flip(text, place):
    return text[:place] + ("B" if text[place] == "A" else "A") + text[place + 1 :]


BAD_KEYS = {
    "empty": lambda text: "",
    "one line": lambda text: text.splitlines()[0] + "\n",
    "a line more": lambda text: text + "more\n",
    "no comment": lambda text: text.replace("untrusted comment: ", ""),
    "not base64": lambda text: text.replace("RWQ", "R!Q"),
    "another algorithm": lambda text: text.replace("RWQ", "RUQ"),
    "another checksum": lambda text: text.replace("AAEIy", "AAEIz"),
    "another derivation": lambda text: text.replace("RWQAAEIy", "RWQAAUIy"),
    "short": lambda text: text[:-5] + "\n",
    "another seed": lambda text: _flip(text, text.index("RWQ") + 100),
    "another public key": lambda text: _flip(text, text.index("RWQ") + 140),
    "too long": lambda text: text + "x" * 5000,
}


@pytest.mark.parametrize("change", BAD_KEYS.values(), ids=BAD_KEYS)
def test_what_is_no_private_key_is_refused(tmp_path, change):
    place = write_keys(tmp_path) / "release.key"
    place.write_text(change(place.read_text()))
    with pytest.raises(InputError, match=r"release\.key is not a private key, or is damaged"):
        read_private_key(place, asked)


def test_a_private_key_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"the key .*none\.key cannot be read: No such file"):
        read_private_key(tmp_path / "none.key", asked)


def test_a_pipe_is_not_waited_for_where_a_private_key_is_read(tmp_path):
    os.mkfifo(tmp_path / "release.key")  # nobody writes to it
    with pytest.raises(InputError, match=r"the key .*release\.key cannot be read: It is not a plain file"):
        read_private_key(tmp_path / "release.key", asked)


def test_a_key_file_does_not_choose_how_much_memory_is_taken(tmp_path):
    """The fields behind the salt are work and memory; here memory is 2^40 bytes."""
    import base64

    data = bytearray(base64.b64decode(ENCRYPTED.splitlines()[1]))
    data[38:54] = (1 << 36).to_bytes(8, "little") + (1 << 40).to_bytes(8, "little")
    (tmp_path / "m.key").write_text(f"untrusted comment: x\n{base64.b64encode(data).decode()}\n")
    with pytest.raises(InputError, match="asks for 1099511627776 bytes of memory"):
        read_private_key(tmp_path / "m.key", lambda: "hunter2")


# Signing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_bundle_is_signed_where_it_stands_and_nothing_else_changes(tmp_path, packed):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    path = bundle.pack(tmp_path / "b.zip") if packed else bundle.path
    done = signed(path, tmp_path / "keys")
    assert done.signed_by == KEY_ID["release"]
    before, after = bundle.files(), Bundle.open(path).files()
    manifests = json.loads(before.pop("manifest.json")), json.loads(after.pop("manifest.json"))
    assert manifests[1].pop("signature") == {"algorithm": "ed25519", "file": "manifest.json.minisig"}
    assert manifests[0].pop("signature") is None
    assert manifests[0] == manifests[1]
    after.pop("manifest.json.minisig")
    assert before.pop("manifest.sha256") != after.pop("manifest.sha256")
    assert before == after


def test_signing_again_keeps_the_manifest_and_with_it_the_base_of_updates(tmp_path):
    bundle = signed(fake_bundle(tmp_path / "b.paraedge"), tmp_path / "keys")
    again = signed(bundle, tmp_path / "keys", "next", "stranger")
    assert (again.sha256, again.signed_by) == (bundle.sha256, KEY_ID["next"])


def test_a_damaged_bundle_is_not_signed(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    (bundle.path / "stem.fake").write_bytes(b"{}{")
    before = tree(bundle.path)
    with pytest.raises(IntegrityError):
        signed(bundle, tmp_path / "keys")
    assert tree(bundle.path) == before


@pytest.mark.parametrize(
    ("names", "ends_in", "message"),
    [
        ([], None, "give at least one key, and each once; got 0"),
        (["release", "release"], None, "give at least one key, and each once; got 2"),
        (["release"], timedelta(days=-1), r"is not in the future \(UTC\); give a later day"),
    ],
)
def test_what_cannot_be_signed_is_refused(tmp_path, names, ends_in, message):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    keys = [private_key(tmp_path / "keys", name) for name in names]
    with pytest.raises(InputError, match=message):
        sign_bundle(bundle.path, keys, None if ends_in is None else datetime.now(UTC) + ends_in)
    assert Bundle.open(bundle.path).signature_bytes is None


@pytest.mark.parametrize("is_zip", [False, True])
def test_behind_a_link_the_bundle_itself_is_signed(tmp_path, is_zip):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    path = bundle.pack(tmp_path / "b.zip") if is_zip else bundle.path
    (tmp_path / "link").symlink_to(path)
    sign_bundle(tmp_path / "link", [private_key(tmp_path / "keys", "release")])
    assert (tmp_path / "link").is_symlink()
    assert Bundle.open(path, trusted_keys=tmp_path / "keys" / "release.pub").signed_by == KEY_ID["release"]


def test_a_link_to_itself_is_no_bundle_to_sign(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(IntegrityError, match="loop cannot be read: Too many levels of symbolic links"):
        sign_bundle(tmp_path / "loop", [private_key(tmp_path / "keys", "release")])


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_keys_without_a_name_are_refused(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"invalid name .* for the keys"):
        make_keys(Path(name), None)
    assert list(tmp_path.iterdir()) == []


def test_more_signatures_than_fit_are_refused(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    keys = []
    for number in range(14):
        make_keys(tmp_path / str(number), None)
        keys.append(read_private_key(tmp_path / f"{number}.key", asked))
    with pytest.raises(InputError, match="14 signatures do not fit into"):
        sign_bundle(bundle.path, keys)
    assert Bundle.open(bundle.path).signature_bytes is None


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")
@pytest.mark.parametrize("trusted", ["release", "next"])
def test_minisign_checks_what_we_sign(tmp_path, trusted):
    keys = write_keys(tmp_path / "keys")
    bundle = signed(fake_bundle(tmp_path / "b.paraedge"), keys, "release")
    minisign = ["minisign", "-V", "-H", "-p", keys / f"{trusted}.pub", "-m", bundle.path / "manifest.json"]
    assert (subprocess.run(minisign, capture_output=True).returncode == 0) == (trusted == "release")


# The commands ------------------------------------------------------------------------------------


def run(*arguments, **options):
    return CliRunner().invoke(paraedge, [*map(str, arguments)], standalone_mode=False, **options)


@pytest.mark.usefixtures("quick_passwords")
def test_keygen_asks_for_a_password_twice_and_sign_once(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    made = run("keygen", tmp_path / "release", input="secret\nsecret\n")
    assert made.exception is None
    name = read_public_key(tmp_path / "release.pub").name
    assert f"release.pub  checks; key {name}" in made.output
    done = run("sign", bundle.path, "--key", tmp_path / "release.key", input="secret\n")
    assert done.output.splitlines()[-1] == f"{bundle.path}: signed by {name}"
    wrong = run("sign", bundle.path, "--key", tmp_path / "release.key", input="guess\n")
    assert isinstance(wrong.exception, InputError)


def test_keygen_sign_and_verify_tell_scripts_the_same(tmp_path, fake_engine):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    made = json.loads(run("keygen", tmp_path / "a", "--no-password", "--json").output)
    assert made["files"] == [str(tmp_path / "a.key"), str(tmp_path / "a.pub")]
    day = f"{datetime.now(UTC) + timedelta(days=40):%Y-%m-%d}"
    done = json.loads(run("sign", bundle.path, "--key", tmp_path / "a.key", "--expires", day, "--json").output)
    assert done["signed_by"] == [made["key_id"]]
    assert done["expires"] == f"{day}T00:00:00+00:00"
    assert done["sha256"] == Bundle.open(bundle.path, trusted_keys=made["public_key"]).sha256
    assert b"expires:" in Bundle.open(bundle.path).signature_bytes


def test_a_past_day_is_refused(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    keys = write_keys(tmp_path / "keys")
    done = run("sign", bundle.path, "--key", keys / "release.key", "--expires", "2020-01-01")
    assert isinstance(done.exception, InputError)


@pytest.fixture
def device(tmp_path, fake_engine):
    """A folder of trusted keys, a bundle that one of them signed, and one that nobody signed."""
    keys = write_keys(tmp_path / "keys")
    for name in ("next", "stranger"):
        (keys / f"{name}.pub").unlink()
    return keys, signed(fake_bundle(tmp_path / "b.paraedge"), keys).path, fake_bundle(tmp_path / "u.paraedge").path


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "{bundle}"],
        ["verify", "{bundle}"],
        ["inspect", "{bundle}"],
        ["pack", "{bundle}", "--out", "{folder}/packed.zip"],
        ["subset", "{bundle}", "--branches", "1", "--out", "{folder}/small.paraedge"],
        ["update", "{bundle}", "{other}", "--out", "{folder}/u.zip"],
        ["compare", "{bundle}"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("named_by", ["option", "environment"])
def test_commands_open_what_a_trusted_key_signed_and_nothing_else(device, arguments, named_by, tmp_path, monkeypatch):
    keys, trusted, unsigned = device
    options = []
    if named_by == "environment":
        monkeypatch.setenv("PARAEDGE_TRUSTED_KEYS", str(keys))
    else:
        options = ["--key", keys / "release.pub"]
    other = signed(fake_bundle(tmp_path / "other.paraedge", [{"add": 9.0}]), keys).path

    def with_bundle(bundle):
        return run(*(one.format(bundle=bundle, other=other, folder=tmp_path) for one in arguments), *options)

    done = with_bundle(trusted)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output  # golden outputs are random
    refused = with_bundle(unsigned)
    assert isinstance(refused.exception, IntegrityError)
    assert "is not signed, and trusted keys are set" in str(refused.exception)
    assert refused.output == ""


@pytest.mark.parametrize(
    ("which", "with_key", "line"),
    [
        (1, True, f"signed by key {KEY_ID['release']}"),
        (1, False, f"signed by key {KEY_ID['release']}, not checked: no trusted key was given (--key)"),
        (2, False, "not signed"),
    ],
)
def test_verify_says_what_it_knows_of_the_signer(device, which, with_key, line):
    options = ["--key", device[0]] if with_key else []
    assert line in run("verify", device[which], *options).output.splitlines()
    document = json.loads(run("verify", device[which], "--json", *options).output)
    assert document["signed_by"] == (KEY_ID["release"] if with_key else None)


@pytest.mark.parametrize("sign_new", [True, False])
def test_apply_takes_what_a_trusted_key_signed(tmp_path, device, sign_new):
    keys, old, _ = device
    new = fake_bundle(tmp_path / "new.paraedge", [{"add": 1.0}], version=2)
    if sign_new:
        signed(new, keys)
    assert run("update", old, new.path, "--out", tmp_path / "u.zip").exception is None
    before = tree(old)
    done = run("apply", tmp_path / "u.zip", old, "--out", old, "--key", keys)
    if sign_new:
        assert done.exception is None
        assert Bundle.open(old, trusted_keys=keys).manifest.version == 2
    else:
        assert "is not signed" in str(done.exception)
        assert tree(old) == before


# Commands that are given bundles, or a bundle; 'sign' takes private keys, and signs what stands there.
@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"train", "extend", "export", "keygen", "sign"}))
def test_every_command_that_is_given_a_bundle_takes_keys(name):
    command = getattr(importlib.import_module(f"paraedge.cli.{name}"), name)
    opens = "Bundle.open(" in inspect.getsource(inspect.getmodule(command.callback)) or name in ("web", "pull")
    assert any(option.name == "trusted_keys" for option in command.params) == opens


def test_the_packaged_model_is_refused_on_a_device_with_keys(device, monkeypatch):
    """It is made here, by nobody whom the device trusts."""
    keys, _, unsigned = device
    monkeypatch.setattr("paraedge.cli.run.packaged_bundle", lambda engine: unsigned)
    assert isinstance(run("run", "--key", keys).exception, IntegrityError)


def test_verify_says_without_a_key_when_a_signature_ends(tmp_path, fake_engine, monkeypatch):
    bundle = fake_bundle(tmp_path / "b.paraedge").path
    day = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    sign_bundle(bundle, [private_key(tmp_path / "keys", "release")], day)
    assert f"signed by key {KEY_ID['release']} (until {day:%Y-%m-%d}), not checked" in run("verify", bundle).output
    monkeypatch.setattr("paraedge_runtime.signature.time.time", lambda: day.timestamp() + 1)
    assert f"signed by key {KEY_ID['release']} (ended on {day:%Y-%m-%d}), not checked" in run("verify", bundle).output


@pytest.mark.parametrize("command", ["subset", "pack", "apply"])
def test_a_lost_signature_is_told_and_refused_where_it_would_be_missed(tmp_path, fake_engine, monkeypatch, command):
    """As cp does, a command replaces what --out names; but nobody shall find out on the device."""
    keys = write_keys(tmp_path / "keys")
    new = fake_bundle(tmp_path / "new.paraedge", version=2).path
    out = fake_bundle(tmp_path / "old.paraedge").path
    if command == "pack":
        Bundle.open(out).pack(out := tmp_path / "old.paraedge.zip")
    signed(out, keys)
    assert run("update", out, new, "--out", tmp_path / "u.zip").exception is None
    arguments = {
        "subset": ["subset", new, "--branches", "1", "--out", out],
        "pack": ["pack", new, "--out", out],
        "apply": ["apply", tmp_path / "u.zip", out, "--out", out],
    }[command]
    before = out.read_bytes() if out.is_file() else tree(out)
    if command != "apply":  # which asks for a signature anyway
        opened = Bundle.open(new)
        replace = (lambda: opened.pack(out)) if command == "pack" else (lambda: opened.subset(1, out))
        monkeypatch.setenv("PARAEDGE_TRUSTED_KEYS", str(keys))
        with pytest.raises(BundleError, match="is signed, the new bundle is not"):
            replace()
        monkeypatch.delenv("PARAEDGE_TRUSTED_KEYS")
    assert before == (out.read_bytes() if out.is_file() else tree(out))
    done = run(*arguments)
    assert done.exception is None
    assert f"Note: {out} was signed, and the bundle that replaced it is not; sign it: paraedge sign" in done.stderr
    assert "Note" not in run(*arguments).stderr or command == "apply"  # what is there now was not signed


def test_a_packed_bundle_is_not_packed_again(tmp_path, fake_engine):
    bundle = fake_bundle(tmp_path / "b.paraedge").path
    assert run("pack", bundle).exception is None
    done = run("pack", f"{bundle}.zip")
    assert "is one file already; to copy it, name the copy with --out" in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.paraedge", "b.paraedge.zip"]
