"""Files and folders that appear whole or not at all."""

import errno
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.bundles import tree

from paraedge_runtime import InputError, atomic
from paraedge_runtime.atomic import check_writable, new_file, new_folder

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime/paraedge_runtime", "runtime/paraedge_measure", "sdk/paraedge", "converters", "demos/raspberry_pi")
_WRITES = re.compile(r"\.write_(?:bytes|text)\(|\.open\(\"[wax]b?\"|O_CREAT|shutil\.copy|savefig\(|os\.truncate\(")
# Modules that write without it, and why a process that is killed there loses nothing.
WRITE_THEMSELVES = {
    "runtime/paraedge_runtime/trial.py": "a setting of its process, in /proc",
    "runtime/paraedge_measure/connections/native.py": "into a temporary folder",
    "runtime/paraedge_measure/connections/storage.py": "into a temporary folder",
    "runtime/paraedge_measure/deadlines/interference.py": "settings of the system, in /sys/fs/cgroup",
    "runtime/paraedge_measure/deadlines/records.py": "whole lines; the next call cuts off half of one",
    "sdk/paraedge/cli/run.py": "into a temporary folder",
    "sdk/paraedge/cli/training.py": "whole lines at the end of a log",
    "converters/paraedge_converters/backends/litert.py": "into a temporary folder",
    "demos/raspberry_pi/paraedge_demo/records.py": "lines of a new file; a replay leaves out half a line",
}


class Stop(BaseException):
    """Like Ctrl-C: no ``Exception``."""


def _write(building, **files):
    for name, text in files.items():
        (building / name).write_text(text)


def test_new_folder_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "made"
    with new_folder(target) as building:
        assert building.parent == tmp_path  # a rename never crosses file systems
        _write(building, a="1")
        assert not target.exists()
    assert tree(tmp_path) == {"made": "folder", "made/a": b"1"}


def test_new_folder_makes_parents(tmp_path):
    with new_folder(tmp_path / "x" / "y" / "made") as building:
        _write(building, a="1")
    assert (tmp_path / "x" / "y" / "made" / "a").read_text() == "1"


def test_new_folder_replaces_what_stood_there_entirely(tmp_path):
    target = tmp_path / "made"
    target.mkdir()
    _write(target, old="0", a="0")
    with new_folder(target) as building:
        _write(building, a="1")
        assert tree(target) == {"old": b"0", "a": b"0"}
    assert tree(tmp_path) == {"made": "folder", "made/a": b"1"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("stood", [False, True], ids=["nothing there", "replacing"])
def test_new_folder_after_an_error_leaves_what_was(tmp_path, error, stood):
    target = tmp_path / "made"
    if stood:
        target.mkdir()
        _write(target, old="0")
    before = tree(tmp_path)

    def write():
        with new_folder(target) as building:
            _write(building, a="1")
            raise error

    with pytest.raises(error):
        write()
    assert tree(tmp_path) == before


def test_new_folder_puts_the_old_one_back_when_the_rename_fails(tmp_path):
    target = tmp_path / "made"
    target.mkdir()
    _write(target, old="0")
    before = tree(tmp_path)
    with pytest.raises(FileNotFoundError), new_folder(target) as building:
        shutil.rmtree(building)  # so there is nothing to rename
    assert tree(tmp_path) == before


def test_new_folder_never_replaces_a_file(tmp_path):
    target = tmp_path / "made"
    target.write_text("a file")
    with pytest.raises(OSError, match="Not a directory"), new_folder(target) as building:
        _write(building, a="1")
    assert tree(tmp_path) == {"made": b"a file"}


def test_new_folder_never_replaces_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "made").symlink_to(tmp_path / "real")
    before = tree(tmp_path)
    with pytest.raises(OSError, match="Not a directory"), new_folder(tmp_path / "made") as building:
        _write(building, a="1")
    assert tree(tmp_path) == before


def test_new_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "sub" / "made.zip"
    with new_file(target) as building:
        assert building.parent == target.parent
        building.write_bytes(b"1")
        assert not target.exists()
    assert tree(tmp_path) == {"sub": "folder", "sub/made.zip": b"1"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("stood", [False, True], ids=["nothing there", "replacing"])
def test_new_file_after_an_error_leaves_what_was(tmp_path, error, stood):
    target = tmp_path / "made.zip"
    if stood:
        target.write_bytes(b"old")
    before = tree(tmp_path)

    def write():
        with new_file(target) as building:
            building.write_bytes(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert tree(tmp_path) == before


def test_new_file_replaces_a_file(tmp_path):
    target = tmp_path / "made.zip"
    target.write_bytes(b"old")
    with new_file(target) as building:
        building.write_bytes(b"new")
    assert tree(tmp_path) == {"made.zip": b"new"}


def _no_links(*arguments):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("is_link", [False, True])
@pytest.mark.parametrize("has_renameat2", [False, True])
@pytest.mark.parametrize("has_links", [False, True])
def test_a_new_file_that_replaces_nothing(tmp_path, monkeypatch, is_link, has_renameat2, has_links):
    if not has_renameat2:
        monkeypatch.setattr(atomic, "_rename", lambda *arguments: False)
    if not has_links:
        monkeypatch.setattr(os, "link", _no_links)
    with new_file(tmp_path / "made", mode=0o600, replaces=False) as building:
        assert stat.S_IMODE(building.stat().st_mode) == 0o600
        building.write_text("1")
    assert tree(tmp_path) == {"made": b"1"}
    if is_link:
        (tmp_path / "made").unlink()
        (tmp_path / "made").symlink_to("nowhere")
    before = tree(tmp_path)
    with pytest.raises(FileExistsError), new_file(tmp_path / "made", replaces=False) as building:
        building.write_text("2")
    assert tree(tmp_path) == before


def test_new_file_never_replaces_a_folder(tmp_path):
    target = tmp_path / "made"
    target.mkdir()
    with pytest.raises(OSError, match="directory"), new_file(target) as building:
        building.write_bytes(b"new")
    assert tree(tmp_path) == {"made": "folder"}


def test_what_is_made_has_the_ordinary_permissions(tmp_path):
    """Temporary folders are private to their user; what is shipped must not be."""
    umask = os.umask(0)
    os.umask(umask)
    with new_folder(tmp_path / "folder"):
        pass
    with new_file(tmp_path / "file"):
        pass
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_a_file_system_that_knows_no_modes_is_good_enough(tmp_path, monkeypatch):
    def refuse(*arguments, **settings):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse)
    with new_folder(tmp_path / "folder") as building:
        _write(building, a="1")
    with new_file(tmp_path / "file") as building:
        building.write_bytes(b"1")
    assert tree(tmp_path) == {"folder": "folder", "folder/a": b"1", "file": b"1"}


def test_the_umask_of_the_moment_counts_and_is_left_alone(tmp_path):
    before = os.umask(0o077)
    try:
        with new_file(tmp_path / "file"):
            pass
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_whether_a_place_can_be_written_is_asked_without_a_trace(tmp_path):
    check_writable(tmp_path / "a" / "b" / "made")
    assert tree(tmp_path) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        check_writable(tmp_path / "file" / "sub" / "made")
    with pytest.raises(OSError, match="too long"):
        check_writable(tmp_path / "new" / ("x" * 300))
    assert tree(tmp_path) == {"file": b""}


# A process that is killed ------------------------------------------------------------------------

_REPLACE = """
import os, signal, sys
from pathlib import Path
from paraedge_runtime import atomic

kind, moment, target = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
count = 0

def killed(function):  # the process dies before its call number `moment`
    def call(*arguments, **settings):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)
    return call

for name in ("mkdir", "open", "rename", "replace", "unlink", "rmdir", "fsync"):
    setattr(os, name, killed(getattr(os, name)))
atomic._exchange = killed(atomic._exchange_in_steps if "in steps" in kind else atomic._exchange)
if kind == "file":
    with atomic.new_file(target) as building:
        building.write_bytes(b"new")
else:
    with atomic.new_folder(target) as building:
        (building / "sub").mkdir()
        (building / "sub" / "a").write_bytes(b"new")
print(count)
"""
_STATES = {
    "file": ({"made": b"old"}, {"made": b"new"}),
    "folder": ({"made": "folder", "made/b": b"old"}, {"made": "folder", "made/sub": "folder", "made/sub/a": b"new"}),
}
_STATES["folder, in steps"] = _STATES["folder"]


def _replace(kind, moment, folder):
    command = [sys.executable, "-c", _REPLACE, kind, str(moment), str(folder / "made")]
    return subprocess.run(command, capture_output=True, text=True)


def _stand(kind, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if kind == "file":
        (folder / "made").write_bytes(b"old")
    else:
        (folder / "made").mkdir()
        (folder / "made" / "b").write_bytes(b"old")


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged in one step on Linux only")
@pytest.mark.parametrize("kind", _STATES)
def test_a_process_killed_at_any_call_loses_nothing_and_the_next_call_cleans_up(tmp_path, kind):
    old, new = _STATES[kind]
    folder = tmp_path / "here"
    _stand(kind, folder)
    finished = _replace(kind, 0, folder)
    assert finished.returncode == 0, finished.stderr
    assert tree(folder) == new
    calls = int(finished.stdout)
    assert calls > 5
    seen = set()
    for moment in range(1, calls + 1):
        _stand(kind, folder)
        assert _replace(kind, moment, folder).returncode == -signal.SIGKILL
        left = {name: data for name, data in tree(folder).items() if not name.startswith(".")}
        seen.add(next((word for word, state in (("old", old), ("new", new)) if left == state), f"lost: {left}"))
        assert _replace(kind, 0, folder).returncode == 0
        assert tree(folder) == new
    assert seen - ({"lost: {}"} if "in steps" in kind else set()) == {"old", "new"}


def test_a_target_that_was_moved_away_is_moved_back_by_the_next_call(tmp_path):
    retired = tmp_path / ".made.old.0123456789abcdef"
    retired.mkdir()
    _write(retired, a="1")
    with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "made"):
        raise ValueError("stop")
    assert tree(tmp_path) == {"made": "folder", "made/a": b"1"}


def test_only_what_was_left_by_our_own_calls_is_cleaned_up(tmp_path):
    names = [".made.new", ".made.new.txt", ".made.new.0123", ".other.new.0123456789abcdef", "made.new.0123456789abcdef"]
    for name in names:
        (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    (tmp_path / ".made.new.0123456789abcdef").write_text("left")
    (tmp_path / ".made.new.0123456789abcdee").mkdir()
    with new_file(tmp_path / "made"):
        pass
    assert tree(tmp_path) == {**before, "made": b""}


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_what_another_process_is_building_is_left_alone(tmp_path, new):
    with new(tmp_path / "made") as first:
        with new(tmp_path / "made") as second:
            assert first.exists()
            assert second != first
        assert first.exists()
    assert os.listdir(tmp_path) == ["made"]


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged in one step on Linux only")
def test_a_folder_that_is_replaced_is_there_at_every_moment(tmp_path):
    target, missing, done = tmp_path / "made", [], threading.Event()

    def look():
        while not done.is_set():
            if not (target / "a").exists():
                missing.append(1)

    with new_folder(target) as building:
        _write(building, a="0")
    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(100):
        with new_folder(target) as building:
            _write(building, a=str(number))
    done.set()
    watcher.join()
    assert missing == []


def test_a_file_system_that_cannot_exchange_names_is_good_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_exchange", atomic._exchange_in_steps)
    test_new_folder_replaces_what_stood_there_entirely(tmp_path)
    shutil.rmtree(tmp_path / "made")
    test_new_folder_puts_the_old_one_back_when_the_rename_fails(tmp_path)


def test_all_of_it_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    synced, names = [], {}

    def fsync(descriptor):
        status = os.fstat(descriptor)
        synced.append(next((name for name, inode in names.items() if inode == status.st_ino), "?"))

    monkeypatch.setattr(os, "fsync", fsync)
    with new_folder(tmp_path / "made") as building:
        (building / "sub").mkdir()
        (building / "sub" / "a").write_text("1")
        for name, path in (("a", building / "sub" / "a"), ("sub", building / "sub"), ("made", building)):
            names[name] = path.stat().st_ino
        names["parent"] = tmp_path.stat().st_ino
    assert synced == ["a", "sub", "made", "parent"]


def test_everything_that_writes_files_does_it_here():
    """So that the calls that are killed below are those of every command."""
    writers = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if _WRITES.search(text := path.read_text()) and "from paraedge_runtime.atomic import" not in text
    }
    assert writers - {"runtime/paraedge_runtime/atomic.py"} == set(WRITE_THEMSELVES)


def _link(path):
    path.with_name("theirs").write_text("MARK of ours")
    path.symlink_to("theirs")


@pytest.mark.parametrize(
    "there",
    [
        lambda path: path.write_text("a thesis"),
        lambda path: path.write_bytes(bytes(5000) + b"MARK"),
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path.name),
        _link,
    ],
    ids=["text", "far behind", "folder", "pipe", "dangling", "loop", "link"],
)
def test_what_is_not_ours_is_not_replaced(tmp_path, there):
    there(tmp_path / "x")
    with pytest.raises(InputError, match="x exists and is not a plan that paraedge wrote; choose another name"):
        atomic.check_replaceable(tmp_path / "x", b"MARK", "a plan")


def test_what_is_ours_or_not_there_is_replaced(tmp_path):
    atomic.check_replaceable(tmp_path / "x", b"MARK", "a plan")
    (tmp_path / "x").write_bytes(b"  MARK ")
    atomic.check_replaceable(tmp_path / "x", b"MARK", "a plan")
