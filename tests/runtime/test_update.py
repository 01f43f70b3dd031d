"""Tests of paraedge_runtime.update: what travels, what comes out, and what is refused."""

import json
import shutil
import zipfile

import pytest
from support.bundles import fake_bundle, replace_file, sign, tree

from paraedge_runtime import Bundle, BundleError, InputError, IntegrityError
from paraedge_runtime.update import apply_update, write_update

OLD = [{"add": 1.0}, {"add": 2.0}]
GOLDEN = "golden/branch_outputs.npy"


@pytest.fixture
def old(tmp_path):
    return fake_bundle(tmp_path / "old.paraedge", OLD)


@pytest.fixture
def new(tmp_path):
    return fake_bundle(tmp_path / "new.paraedge", [*OLD, {"add": 3.0}])


@pytest.mark.parametrize(
    ("behaviours", "travels"),
    [
        pytest.param([*OLD, {"add": 3.0}], ["branch_02.fake", "card.json", GOLDEN], id="one-more"),
        pytest.param(
            [*OLD, {"add": 3.0}, {"add": 4.0}], ["branch_02.fake", "branch_03.fake", "card.json", GOLDEN], id="two-more"
        ),
        pytest.param([{"add": 1.0}, {"add": 9.0}], ["branch_01.fake"], id="one-changed"),
        pytest.param([{"add": 2.0}, {"add": 1.0}], [], id="the-same-parts-elsewhere"),
        pytest.param([{"add": 1.0}], ["card.json", GOLDEN], id="one-less"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_an_update_holds_what_changed_and_gives_the_new_bundle_byte_by_byte(tmp_path, old, behaviours, travels, packed):
    new = fake_bundle(tmp_path / "new.paraedge", behaviours)
    if packed:
        old = Bundle.open(old.pack(tmp_path / "old.zip"))
    assert write_update(old, new, tmp_path / "u.zip") == travels
    with zipfile.ZipFile(tmp_path / "u.zip") as archive:
        assert archive.namelist() == ["manifest.json", *travels]
    applied = apply_update(old, tmp_path / "u.zip", tmp_path / "applied.paraedge")
    assert tree(applied.path) == tree(new.path)
    assert applied.sha256 == new.sha256


def test_an_update_is_the_same_file_every_time(tmp_path, old, new):
    for name in ("a.zip", "b.zip", "a.zip"):
        write_update(old, new, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_old_bundle_may_be_replaced(tmp_path, old, new):
    write_update(old, new, tmp_path / "u.zip")
    apply_update(old, tmp_path / "u.zip", old.path)
    assert tree(old.path) == tree(new.path)


def test_an_update_for_another_bundle_is_refused(tmp_path, old, new):
    write_update(old, new, tmp_path / "u.zip")
    other = fake_bundle(tmp_path / "other.paraedge", [{"add": 5.0}])
    before = tree(tmp_path)
    with pytest.raises(IntegrityError, match=r"u\.zip needs branch_00\.fake, .* made for another bundle"):
        apply_update(other, tmp_path / "u.zip", tmp_path / "x.paraedge")
    assert tree(tmp_path) == before


def test_a_damaged_part_is_refused_and_the_old_bundle_stays(tmp_path, old, new):
    write_update(old, new, tmp_path / "u.zip")
    raw = (tmp_path / "u.zip").read_bytes()
    data = json.dumps({"add": 3.0}).encode()
    assert raw.count(data) == 1
    (tmp_path / "u.zip").write_bytes(raw.replace(data, json.dumps({"add": 4.0}).encode()))
    before = tree(tmp_path)
    with pytest.raises(IntegrityError):
        apply_update(old, tmp_path / "u.zip", old.path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [("manifest.json", "is no update, or was copied in part"), ("unlisted.fake", "unlisted.fake is not listed")],
)
def test_a_zip_that_is_no_update_is_refused(tmp_path, old, new, extra, message):
    with zipfile.ZipFile(tmp_path / "u.zip", "w") as archive:
        if extra != "manifest.json":
            archive.writestr("manifest.json", new.manifest_bytes)
        archive.writestr("unlisted.fake", b"{}")
    with pytest.raises(IntegrityError, match=message):
        apply_update(old, tmp_path / "u.zip", tmp_path / "x.paraedge")


def test_the_same_bundle_needs_no_update(tmp_path, old):
    shutil.copytree(old.path, tmp_path / "copy.paraedge")
    with pytest.raises(InputError, match="are the same bundle"):
        write_update(old, Bundle.open(tmp_path / "copy.paraedge"), tmp_path / "u.zip")


@pytest.mark.parametrize("there", ["file", "folder"])
def test_something_else_is_not_replaced_by_an_update(tmp_path, old, new, there):
    path = tmp_path / "mine"
    path.mkdir() if there == "folder" else path.write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="mine exists and is no zip"):
        write_update(old, new, path)
    assert tree(tmp_path) == before


def test_a_part_that_was_changed_on_the_device_is_refused(tmp_path, old, new):
    write_update(old, new, tmp_path / "u.zip")
    replace_file(old.path, "branch_00.fake", b"{}")
    with pytest.raises(IntegrityError, match=r"branch_00\.fake"):
        apply_update(Bundle.open(old.path), tmp_path / "u.zip", tmp_path / "x.paraedge")


def test_a_signature_travels_and_the_manifest_stays_byte_by_byte(tmp_path, old, new):
    sign(new.path)
    signed = Bundle.open(new.path)
    assert write_update(old, signed, tmp_path / "u.zip") == ["branch_02.fake", "card.json", GOLDEN]
    applied = apply_update(old, tmp_path / "u.zip", tmp_path / "applied.paraedge")
    assert tree(applied.path) == tree(signed.path)
    assert applied.signature_bytes == b"a signature"
