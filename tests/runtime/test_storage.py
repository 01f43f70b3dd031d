"""Where a bundle's bytes are: folders and zips read alike, and what leads elsewhere is refused."""

import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from support.bundles import edit_manifest, fake_bundle

from paraedge_runtime import Bundle, IntegrityError
from paraedge_runtime.archive import MAX_FILES, write_zip
from paraedge_runtime.core import load_core
from paraedge_runtime.manifest import MAX_MANIFEST_BYTES
from paraedge_runtime.storage import FolderStorage, ZipStorage, looks_like_bundle, open_storage

FILES = {"manifest.json": b"{}", "a": b"123", "sub/b": b""}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    for name, data in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_both_storages_read_the_same(folder, tmp_path, kind):
    write_zip(FILES, tmp_path / "zip")
    storage = open_storage(tmp_path / kind)
    assert isinstance(storage, FolderStorage if kind == "folder" else ZipStorage)
    assert storage.path == tmp_path / kind
    assert storage.names() == set(FILES)
    assert storage.read("a", 3) == b"123"
    assert storage.read("sub/b", 0) == b""
    assert storage.read_unhashed("manifest.json", 2) == b"{}"


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("name", "size_bytes", "problem"),
    [
        ("a", 2, "a has 3 bytes, manifest.json says 2"),
        ("a", 4, "a has 3 bytes, manifest.json says 4"),
        ("nothing", 3, "nothing is missing"),
        ("a/b", 3, "a/b"),
        ("sub", 0, "sub"),
        ("sub/b", 1, "sub/b has 0 bytes, manifest.json says 1"),
        ("a", 0, "a has 3 bytes, manifest.json says 0"),
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
        open_storage(tmp_path / kind).read_unhashed("manifest.json", MAX_MANIFEST_BYTES)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(
            lambda path: None, "does not exist; make a bundle: paraedge export --target linux --out ", id="missing"
        ),
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


@pytest.mark.parametrize("name", ["plain-1.paraedge", "my first.paraedge", "it's $HOME.zip", "[a]*.paraedge"])
def test_the_command_that_makes_a_missing_bundle_is_quoted_for_a_shell(tmp_path, name):
    """In Python and in the native core."""
    path = str(tmp_path / name)
    readers = (open_storage, Path), (lambda given: load_core().normalise(given, np.zeros((4, 4, 3), np.uint8)), str)
    for read, kind in readers:
        with pytest.raises(IntegrityError, match="does not exist; make a bundle: ") as caught:
            read(kind(path))
        assert shlex.split(str(caught.value).split("make a bundle: ")[1])[-2:] == ["--out", path]
