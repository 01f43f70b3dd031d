"""Tests of paraedge_runtime.update: what travels, what comes out, and what is refused."""

import json
import shutil
import zipfile

import pytest
from support.bundles import fake_bundle, hash_line, sign, tree

from paraedge_runtime import Bundle, BundleError, InputError, IntegrityError, ManifestError
from paraedge_runtime.archive import write_zip
from paraedge_runtime.bundle import manifest_files
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
        assert archive.namelist() == ["manifest.json", *sorted([*travels, "manifest.sha256", "update.json"])]
        assert json.loads(archive.read("update.json")) == {"format": "paraedge-update/1", "base_sha256": old.sha256}
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


def _another(path, old, new):
    return fake_bundle(path, [{"add": 5.0}])


def _of_the_same_parts(path, old, new):
    return fake_bundle(path, OLD, description="another model")


def _already_new(path, old, new):
    return new


def _less(path, old, new):
    return old.subset([0], path)


@pytest.mark.parametrize("base", [_another, _of_the_same_parts, _already_new, _less])
@pytest.mark.parametrize("allow_downgrade", [False, True])
def test_an_update_fits_the_bundle_that_it_was_made_for_and_no_other(tmp_path, old, new, base, allow_downgrade):
    write_update(old, new, tmp_path / "u.zip")
    other = base(tmp_path / "other.paraedge", old, new)
    before = tree(tmp_path)
    problem = rf"u\.zip was made for the bundle {old.sha256[:12]}…, .* is {other.sha256[:12]}…; make one from"
    with pytest.raises(IntegrityError, match=problem):
        apply_update(other, tmp_path / "u.zip", tmp_path / "x.paraedge", allow_downgrade=allow_downgrade)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("before", "after", "fine"), [(1, 1, True), (1, 2, True), (3, 2, False), (2, 1, False)])
def test_the_version_goes_back_only_when_that_is_asked_for(tmp_path, before, after, fine):
    old = fake_bundle(tmp_path / "old.paraedge", OLD, version=before)
    new = fake_bundle(tmp_path / "new.paraedge", [*OLD, {"add": 3.0}], version=after)
    write_update(old, new, tmp_path / "u.zip")
    kept = tree(old.path)
    if not fine:
        with pytest.raises(InputError, match=rf"a downgrade from version {before} to {after}; pass --allow-downgrade"):
            apply_update(old, tmp_path / "u.zip", old.path)
        assert tree(old.path) == kept
    applied = apply_update(old, tmp_path / "u.zip", old.path, allow_downgrade=not fine)
    assert applied.manifest.version == after
    assert tree(old.path) == tree(new.path)


def test_the_version_of_what_is_replaced_counts_too(tmp_path, old):
    """``current`` is newer than what the update was made for, and leads to."""
    new = fake_bundle(tmp_path / "new.paraedge", [*OLD, {"add": 3.0}], version=2)
    write_update(old, new, tmp_path / "u.zip")
    current = fake_bundle(tmp_path / "current.paraedge", OLD, version=3).path
    kept = tree(current)
    with pytest.raises(InputError, match=r"a downgrade from version 3 to 2; pass --allow-downgrade"):
        apply_update(old, tmp_path / "u.zip", current)
    assert tree(current) == kept
    assert apply_update(old, tmp_path / "u.zip", current, allow_downgrade=True).manifest.version == 2


def test_a_packed_bundle_is_no_update(tmp_path, old, new):
    with pytest.raises(IntegrityError, match=r"whole\.zip is not an update"):
        apply_update(old, new.pack(tmp_path / "whole.zip"), tmp_path / "x.paraedge")


def test_an_update_is_no_bundle_and_says_what_to_do_with_it(tmp_path, old, new):
    write_update(old, new, tmp_path / "u.zip")
    with pytest.raises(IntegrityError, match=r"u\.zip is an update, not a bundle; .*: paraedge apply .*u\.zip OLD"):
        Bundle.open(tmp_path / "u.zip")


@pytest.mark.parametrize(
    ("kept", "problem"), [(None, "does not exist"), (100, "is not an update, or was copied in part")]
)
def test_an_update_that_is_not_there_or_cut_off_is_made_by_update(tmp_path, old, new, kept, problem):
    write_update(old, new, tmp_path / "u.zip")
    data = (tmp_path / "u.zip").read_bytes()[:kept]
    (tmp_path / "u.zip").unlink()
    if kept is not None:
        (tmp_path / "u.zip").write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"u\.zip {problem}; make .*'paraedge update OLD NEW"):
        apply_update(old, tmp_path / "u.zip", tmp_path / "x.paraedge")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        pytest.param(b"{}", "`format`", id="empty"),
        pytest.param(b'{"format": "paraedge-update/2", "base_sha256": "%s"}' % (b"0" * 64), "format", id="newer"),
        pytest.param(b'{"format": "paraedge-update/1", "base_sha256": "0"}', "base_sha256", id="no hash"),
        pytest.param(
            b'{"format": "paraedge-update/1", "base_sha256": "%s", "x": 1}' % (b"0" * 64), "unknown field", id="more"
        ),
        pytest.param(b"[" * 5000, r"update\.json", id="deep"),
    ],
)
def test_an_update_that_says_something_else_is_refused(tmp_path, old, new, record, message):
    write_zip({**manifest_files(new.manifest_bytes), "update.json": record}, tmp_path / "u.zip")
    with pytest.raises(ManifestError, match=message):
        apply_update(old, tmp_path / "u.zip", tmp_path / "x.paraedge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("manifest.sha256"), "manifest.sha256 is missing"),
        (lambda files: files.update({"manifest.json": files["manifest.json"] + b" "}), "manifest.json has SHA-256"),
        (lambda files: files.update({"manifest.sha256": hash_line(b"{}")}), "manifest.sha256 says 44136fa355b3…"),
        (lambda files: files.update({"manifest.sha256": b"x"}), "manifest.sha256 is not the line"),
    ],
    ids=["no hash", "another manifest", "another hash", "no line"],
)
def test_an_update_whose_manifest_has_not_its_hash_is_refused(tmp_path, old, new, change, message):
    write_update(old, new, tmp_path / "u.zip")
    with zipfile.ZipFile(tmp_path / "u.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    write_zip(files, tmp_path / "u.zip")
    with pytest.raises(IntegrityError, match=message):
        apply_update(old, tmp_path / "u.zip", tmp_path / "x.paraedge")
    assert not (tmp_path / "x.paraedge").exists()


def test_an_update_that_lacks_a_part_is_refused(tmp_path, old, new):
    write_update(old, new, tmp_path / "u.zip")
    with zipfile.ZipFile(tmp_path / "u.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != "branch_02.fake"}
    write_zip(files, tmp_path / "u.zip")
    with pytest.raises(IntegrityError, match=r"branch_02\.fake is neither in it nor in .*old\.paraedge"):
        apply_update(old, tmp_path / "u.zip", tmp_path / "x.paraedge")


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
    [("manifest.json", "is not an update, or was copied in part"), ("unlisted.fake", "unlisted.fake is not listed")],
)
def test_a_zip_that_is_no_update_is_refused(tmp_path, old, new, extra, message):
    with zipfile.ZipFile(tmp_path / "u.zip", "w") as archive:
        if extra != "manifest.json":
            for name, data in manifest_files(new.manifest_bytes).items():
                archive.writestr(name, data)
            archive.writestr("update.json", json.dumps({"format": "paraedge-update/1", "base_sha256": old.sha256}))
        archive.writestr("unlisted.fake", b"{}")
    with pytest.raises(IntegrityError, match=message):
        apply_update(old, tmp_path / "u.zip", tmp_path / "x.paraedge")


def test_the_same_bundle_needs_no_update(tmp_path, old):
    shutil.copytree(old.path, tmp_path / "copy.paraedge")
    with pytest.raises(InputError, match="are the same bundle"):
        write_update(old, Bundle.open(tmp_path / "copy.paraedge"), tmp_path / "u.zip")


@pytest.mark.parametrize("there", ["file", "folder", "packed bundle", "link to an update"])
def test_something_else_is_not_replaced_by_an_update(tmp_path, old, new, there):
    path = tmp_path / "mine"
    if there == "folder":
        path.mkdir()
    elif there == "file":
        path.write_text("mine")
    elif there == "packed bundle":
        new.pack(path)
    else:
        write_update(old, new, tmp_path / "u.zip")
        path.symlink_to("u.zip")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="mine exists and is not an update; choose another name with --out"):
        write_update(old, new, path)
    assert tree(tmp_path) == before


def test_a_file_that_was_changed_on_the_device_is_refused(tmp_path, old, new):
    write_update(old, new, tmp_path / "u.zip")
    inputs = old.path / "golden" / "inputs.npy"
    inputs.write_bytes(bytes(inputs.stat().st_size))
    before = tree(tmp_path)
    with pytest.raises(IntegrityError, match=r"golden/inputs\.npy"):
        apply_update(old, tmp_path / "u.zip", tmp_path / "x.paraedge")
    assert tree(tmp_path) == before


def test_a_signature_travels_and_the_manifest_stays_byte_by_byte(tmp_path, old, new):
    sign(new.path)
    signed = Bundle.open(new.path)
    assert write_update(old, signed, tmp_path / "u.zip") == ["branch_02.fake", "card.json", GOLDEN]
    applied = apply_update(old, tmp_path / "u.zip", tmp_path / "applied.paraedge")
    assert tree(applied.path) == tree(signed.path)
    assert applied.signature_bytes == b"a signature"
