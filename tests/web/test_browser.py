"""The package in headless Chromium, on bundles exported here: ``runtime/web/test/browser`` has the tests."""

import json
import shutil

import pytest
from support.keys import PUBLIC, signed, write_keys

from paraedge.exporting import export
from paraedge.web import make_site
from paraedge_runtime.bundle import Bundle

# name -> (model, engine, recipe, branches): both engines, both packaged models, floats and integers.
BUNDLES = {
    "fashion-mnist-litert": ("fashion-mnist", "litert", "fp32", None),
    "fashion-mnist-onnxruntime": ("fashion-mnist", "onnxruntime", "int8-dynamic", 4),
    "cifar10-litert": ("cifar10", "litert", "int8-dynamic", 2),
    "cifar10-onnxruntime": ("cifar10", "onnxruntime", "fp32", 2),
}


@pytest.fixture(scope="session")
def web_setup(node, chromium, tmp_path_factory):
    """What ``test/browser/chromium.js`` reads: Chromium, the engines' files, the bundles."""
    folder = tmp_path_factory.mktemp("web")
    for engine in ("litert", "onnxruntime"):
        node("bin/copy-engine.js", engine, str(folder / "engines" / engine))
    bundles = {}
    for name, (model, engine, recipe, branches) in BUNDLES.items():
        bundle: Bundle = export(
            model,
            target="web",
            engine=engine,
            quantize=recipe,
            branches=branches,
            out=folder / f"{name}.paraedge",
        )
        bundles[name] = str(bundle.path)
    copy = shutil.copytree(bundles["fashion-mnist-litert"], folder / "signed.paraedge")
    signed(copy, write_keys(folder / "keys"))
    site = make_site(folder / "site", [copy], trusted_keys=PUBLIC["release"])
    return {
        "chromium": chromium,
        "engines": str(folder / "engines"),
        "bundles": bundles,
        "signed": {"path": str(copy), "key": PUBLIC["release"], "stranger": PUBLIC["stranger"]},
        "site": str(site),
    }


def _report(text):
    """What node's test runner printed, if not every test passed."""
    return text if "# fail 0" not in text or "# skipped 0" not in text else None


def _tests(node, file, **options):
    return node("--test", "--test-reporter=tap", file, **options)


def test_the_package_in_chromium(node, web_setup):
    text = _tests(node, "test/browser/session.test.js", timeout_s=240, PARAEDGE_WEB_SETUP=json.dumps(web_setup))
    assert _report(text) is None
    assert text.count("\nok ") >= len(BUNDLES) + 9


def test_the_page_in_chromium(node, web_setup):
    text = _tests(node, "test/browser/page.test.js", timeout_s=240, PARAEDGE_WEB_SETUP=json.dumps(web_setup))
    assert _report(text) is None
    assert text.count("\nok ") >= 5


def test_the_scheduler_without_a_browser(node):
    text = _tests(node, "test/session.test.js")
    assert _report(text) is None
    assert text.count("\nok ") >= 25
