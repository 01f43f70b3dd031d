"""Files and folders that appear whole or not at all."""

import errno
import os
import shutil
import stat

import pytest
from support.bundles import tree

from paraedge_runtime.atomic import check_writable, new_file, new_folder


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
