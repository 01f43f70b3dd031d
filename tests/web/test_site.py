"""``paraedge web``: a folder with the page, the runtime, bundles and engines; what it refuses."""

import json
import shutil

import pytest
from support.bundles import fake_bundle, tree
from support.keys import PUBLIC, signed, write_keys

from paraedge import web
from paraedge_runtime import EngineUnavailable, InputError, IntegrityError
from paraedge_runtime.manifest import ImageInput


@pytest.fixture
def bundle(tmp_path):
    """A bundle that says it is for LiteRT; nothing here runs it."""
    return fake_bundle(tmp_path / "b.paraedge", engine="litert", name="mine").path


def test_everything_is_in_the_folder(node, tmp_path, bundle):
    folder = web.make_site(tmp_path / "site", [bundle])
    files = tree(folder)
    assert {"index.html", "app.js", "offline.js", "paraedge/index.js", "paraedge/worker.js"} <= set(files)
    assert {f"engines/litert/{name}" for name in ("litert.js", "core.js", "litert_wasm_internal.wasm")} <= set(files)
    assert "paraedge/engines/litert.js" not in files
    assert not any(name.startswith("engines/onnxruntime") for name in files)
    inside = {
        name.removeprefix("bundles/mine/"): data for name, data in files.items() if name.startswith("bundles/mine/")
    }
    assert inside == tree(bundle)
    index = json.loads(files["site.json"])
    assert index["models"] == ["mine"]
    assert sorted([*index["files"], "site.json"]) == sorted(name for name in files if files[name] != "folder")


def test_two_bundles_of_one_model_are_called_like_their_folders(node, tmp_path, bundle):
    other = fake_bundle(tmp_path / "with two.paraedge", [{"add": 5.0}], engine="litert", name="mine")
    packed = other.pack(tmp_path / "with two.paraedge.zip")
    folder = web.make_site(tmp_path / "site", [bundle, packed])
    assert json.loads((folder / "site.json").read_text())["models"] == ["b", "with-two"]
    assert (folder / "bundles/with-two/manifest.json").read_bytes() == other.manifest_bytes


def test_the_camera_is_for_the_model_of_photographs(node, tmp_path, bundle):
    def of(name, side):
        spec = ImageInput(name="image", shape=(1, 3, side, side), mean=(0.5,) * 3, std=(0.25,) * 3)
        return fake_bundle(tmp_path / f"{name}.paraedge", engine="litert", name=name, input=spec).path

    thumbnails, photographs, larger = of("cifar10", 32), of("waste", 224), of("larger", 96)
    chosen = []
    for number, bundles in enumerate(([bundle], [bundle, thumbnails], [bundle, larger, photographs, thumbnails])):
        site = web.make_site(tmp_path / f"site-{number}", bundles)
        chosen.append(json.loads((site / "site.json").read_text())["cameraModel"])
    assert chosen == [None, None, "waste"]


def test_its_version_changes_with_any_file_and_with_nothing_else(node, tmp_path, bundle):
    versions = []
    for name in ("one", "two", "three"):
        if name == "three":
            shutil.rmtree(bundle)
            fake_bundle(bundle, [{"add": 5.0}], engine="litert", name="mine")
        folder = web.make_site(tmp_path / name, [bundle])
        versions.append(json.loads((folder / "site.json").read_text())["version"])
    assert versions[0] == versions[1] != versions[2]


def test_trusted_keys_are_in_the_page_and_other_bundles_are_not(node, tmp_path, bundle, monkeypatch):
    keys = write_keys(tmp_path / "keys")
    with pytest.raises(IntegrityError, match="is not signed"):
        web.make_site(tmp_path / "site", [bundle], trusted_keys=keys / "release.pub")
    signed(bundle, keys)
    monkeypatch.setenv("PARAEDGE_TRUSTED_KEYS", str(keys / "release.pub"))
    sites = [web.make_site(tmp_path / "one", [bundle]), web.make_site(tmp_path / "two", [bundle], trusted_keys=keys)]
    monkeypatch.delenv("PARAEDGE_TRUSTED_KEYS")
    sites.append(web.make_site(tmp_path / "three", [bundle]))
    found = [json.loads((site / "site.json").read_text()) for site in sites]
    assert [site["trustedKeys"] for site in found] == [
        [PUBLIC["release"]],
        [PUBLIC[name] for name in ("next", "release", "stranger")],
        None,
    ]
    assert len({site["version"] for site in found}) == 3  # a page with other keys is another page


def test_what_cannot_be_made_is_refused_and_leaves_nothing(tmp_path, bundle, monkeypatch):
    other = fake_bundle(tmp_path / "other.paraedge", name="other").path
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    before = tree(tmp_path)
    for out, bundles, problem in (
        ("taken", [bundle], r"taken exists; remove it"),
        ("b.paraedge", [tmp_path / "site"], r"is a bundle; name the folder to write first: paraedge web site b"),
        ("taken/file/site", [bundle], r"site cannot be written: .*; choose another folder"),
        ("site", [], r"no bundle given; export one: paraedge export --target web"),
        ("site", [other], r"other\.paraedge is for 'fake', browsers run litert, onnxruntime; export it again"),
        ("site", [bundle, bundle], r"two bundles are called '.*'; rename one of them"),
    ):
        with pytest.raises(InputError, match=problem):
            web.make_site(tmp_path / out, bundles)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineUnavailable, match="node is not installed; install nodejs and npm"):
        web.make_site(tmp_path / "site", [bundle])
    assert tree(tmp_path) == before


def test_engines_that_npm_cannot_fetch_are_named(tmp_path, bundle, monkeypatch):
    """A package without node_modules, and a registry that is not there."""
    package, page = web._sources()
    copy = tmp_path / "package"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("node_modules", "types"))
    monkeypatch.setattr(web, "_sources", lambda: (copy, page))
    monkeypatch.setenv("PARAEDGE_CACHE", str(tmp_path / "cache"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in (("node", "exit 0"), ("npm", "echo 'npm error code ENOTFOUND' >&2; exit 1")):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    with pytest.raises(EngineUnavailable, match=r"npm ci failed: npm error code ENOTFOUND; check the connection"):
        web.make_site(tmp_path / "site", [bundle])
    assert not (tmp_path / "site").exists()
    assert not list((tmp_path / "cache").rglob("done"))
