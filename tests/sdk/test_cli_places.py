"""The commands where names are strange and systems bare: brackets, bytes, no /tmp, no home folder."""

import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.bundles import fake_bundle

from paraedge.cli.main import paraedge
from paraedge_runtime import Bundle

PARAEDGE = "import sys; sys.argv[0] = 'paraedge'; from paraedge.cli.main import main; main()"
NO_TMP = "import tempfile; tempfile._candidate_tempdir_list = lambda: []; "
NO_HOME = "import pwd; pwd.getpwuid = {}.__getitem__; "


def run(*arguments, before="", cwd=None, without=(), **environment):
    environment = {name: value for name, value in {**os.environ, **environment}.items() if name not in without}
    return subprocess.run(
        [sys.executable, "-c", before + PARAEDGE, *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=280,
    )


def succeed(*arguments, **options):
    done = run(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles["litert"].path


@pytest.fixture(scope="module")
def image(bundle, checkpoint, tmp_path_factory):
    from PIL import Image

    path = tmp_path_factory.mktemp("image") / "plain.png"
    Image.fromarray(checkpoint.samples.images[0, :, :, 0]).save(path)
    return path


@pytest.mark.parametrize("name", ["cat[final].png", "a[/b].png", "[red]x.png", ":cat:.png", "$x_$.png"])
def test_a_name_is_shown_as_it_is(bundle, image, tmp_path, name):
    path = tmp_path / "[int8]" / name
    path.parent.mkdir(parents=True)
    shutil.copy(image, path)
    assert name in succeed("run", bundle, f"[int8]/{name}", cwd=tmp_path)
    assert f"[int8]/{name}" in succeed("run", bundle, f"[int8]/{name}", "--explain", cwd=tmp_path)


def test_a_bundle_s_path_is_shown_as_it_is(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b[int8][/x].paraedge")
    for command in ("inspect", "verify"):
        assert "b[int8][/x].paraedge" in succeed(command, "b[int8][/x].paraedge", cwd=tmp_path)


@pytest.mark.parametrize(
    ("locale", "replacement"),
    [({"LC_ALL": "C.UTF-8"}, "\ufffd"), ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "?")],
)
def test_a_name_that_is_not_utf8_is_shown_with_a_replacement(bundle, image, tmp_path, locale, replacement):
    folder = tmp_path / os.fsdecode(b"f\xfcr")
    folder.mkdir()
    shutil.copy(image, folder / os.fsdecode(b"latin-\xe9.png"))
    assert f"latin-{replacement}.png" in succeed("run", bundle, folder, **locale)
    result = json.loads(succeed("run", bundle, folder, "--json", **locale))
    assert result["input"].endswith("f\ufffdr/latin-\ufffd.png")
    (folder / os.fsdecode(b"latin-\xe9.png")).write_text("no image")
    done = run("run", bundle, folder, **locale)
    assert done.returncode != 0
    assert "latin-\ufffd.png is not an image".encode() in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "verify", "inspect", "doctor"])
def test_no_folder_for_temporary_files_is_needed(bundle, tmp_path, command):
    arguments = [] if command == "doctor" else [bundle]
    assert succeed(command, *arguments, before=NO_TMP, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_engines_say_is_kept_where_there_is_no_folder_for_it(tmp_path):
    script = (
        NO_TMP
        + "import os, sys; from paraedge.cli._chatter import captured_chatter\n"
        + "with captured_chatter() as chatter: os.write(2, b'from C\\n'); print('from Python')\n"
        + "print(chatter.tail())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "from C | from Python\n"


NOBODY = {"before": NO_HOME, "without": ("HOME", "PARAEDGE_CACHE", "XDG_CACHE_HOME")}


@pytest.mark.parametrize("command", ["run", "verify", "inspect"])
def test_a_user_without_a_home_folder_runs_a_bundle(bundle, tmp_path, command):
    assert succeed(command, bundle, cwd=tmp_path, **NOBODY)


def test_doctor_tells_a_user_without_a_home_folder_what_to_set(tmp_path):
    assert "not kept: this user has no home folder" in succeed("doctor", cwd=tmp_path, **NOBODY)
    cache = json.loads(succeed("doctor", "--json", cwd=tmp_path, **NOBODY))["cache"]
    assert cache["path"] is None
    assert "set PARAEDGE_CACHE" in cache["problem"]


def test_an_export_without_a_home_folder_keeps_no_parts(tmp_path):
    options = ["--target", "linux", "--branches", "1", "--out", "x.paraedge"]
    done = run("export", *options, cwd=tmp_path, **NOBODY)
    assert done.returncode == 0, done.stderr
    assert b"this user has no home folder for the cache; set PARAEDGE_CACHE" in done.stderr


@pytest.mark.parametrize("target", ["linux", "raspberry-pi"])
def test_an_export_needs_no_folder_but_the_one_it_writes_to(tmp_path, target):
    options = ["--target", target, "--branches", "1", "--quantize", "int8-dynamic", "--out", "x.paraedge"]
    done = run("export", *options, cwd=tmp_path, **{**NOBODY, "before": NO_HOME + NO_TMP})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.paraedge"]


def test_the_packaged_model_s_bundle_needs_a_place(tmp_path):
    done = run("run", cwd=tmp_path, **NOBODY)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1].endswith("set PARAEDGE_CACHE")


LONG = "x" * 300
FULL = Path("/dev/full")


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", LONG],
        ["run", LONG],
        ["evaluate", LONG],
        ["export", "--target", "linux", "--model", LONG],
        ["subset", "b.paraedge", "--branches", "1", "--out", LONG],
        ["pack", "b.paraedge", "--out", LONG],
        ["train", "--dataset", "npz", "--data-dir", LONG, "--out", "x"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_no_file_system_takes_is_one_line(tmp_path, arguments):
    fake_bundle(tmp_path / "b.paraedge")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: ")
    assert "OSError" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["b.paraedge"]


def test_a_pipe_is_not_waited_for_where_an_image_is_read(bundle, tmp_path):
    """Its other end may never be opened."""
    os.mkfifo(tmp_path / "a.png")
    done = run("run", bundle, "a.png", cwd=tmp_path)
    assert done.returncode == 2
    assert b"Error: a.png is not an image that can be read: it is a pipe; remove or replace it" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_closed_are_not_missed(tmp_path, closed):
    path = fake_bundle(tmp_path / "b.paraedge").path
    command = shlex.join([sys.executable, "-c", PARAEDGE, "inspect", str(path)])
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stderr) == (0, "")
    assert (path.name in done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.skipif(not FULL.exists(), reason="Linux has it")
def test_a_full_disk_behind_the_output_is_one_line(tmp_path):
    path = fake_bundle(tmp_path / "b.paraedge").path
    with FULL.open("w") as full:
        command = [sys.executable, "-c", PARAEDGE, "inspect", str(path)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=280)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: a file or the output cannot be written: No space left on device")


def test_what_is_made_of_the_bundle_of_the_current_folder_stands_beside_it(tmp_path, monkeypatch):
    old, new = fake_bundle(tmp_path / "old.paraedge", [{}]), fake_bundle(tmp_path / "new.paraedge")
    monkeypatch.chdir(new.path)
    for arguments in (["pack", "."], ["update", str(old.path), "."]):
        assert CliRunner().invoke(paraedge, arguments).exception is None
    monkeypatch.chdir(new.path / "golden")
    assert CliRunner().invoke(paraedge, ["pack", ".."]).exception is None
    made = ["new.paraedge", "new.paraedge.update.zip", "new.paraedge.zip", "old.paraedge"]
    assert sorted(path.name for path in tmp_path.iterdir()) == made
    assert Bundle.open(new.path)


def test_a_file_does_not_make_its_decoder_fill_the_terminal(bundle, tmp_path):
    """A TIFF whose tags point beyond its end; Pillow warns of each."""
    tags = [(256, 28), (257, 28), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 28), (279, 784)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries += [struct.pack("<HHII", 40000 + number, 1, 4_000_000, 8) for number in range(100)]
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    (tmp_path / "a.tif").write_bytes(head + b"".join(entries) + bytes(1000))
    done = run("run", bundle, "a.tif", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
