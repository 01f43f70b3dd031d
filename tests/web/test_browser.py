"""The package in headless Chromium, on bundles exported here: ``runtime/web/test/browser`` has the tests."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.keys import PUBLIC, signed, write_keys

from paraedge.cli.plan import plan
from paraedge.exporting import export
from paraedge.web import make_site
from paraedge_measure.connections import connect
from paraedge_measure.device import Browser, read_device
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import DeviceError

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
    # Two models of one page, of which the small one is measured: two branches take a quarter of the time.
    keys = write_keys(folder / "keys")
    whole = shutil.copytree(bundles["fashion-mnist-litert"], folder / "signed" / "fashion-mnist.paraedge")
    small = Bundle.open(whole).subset([0, 1], folder / "signed" / "fashion-mnist-2.paraedge").path
    signed(whole, keys), signed(small, keys)
    site = make_site(folder / "site", [whole, small], trusted_keys=PUBLIC["release"])
    (folder / "downloads").mkdir()
    return {
        "chromium": chromium,
        "engines": str(folder / "engines"),
        "bundles": bundles,
        "signed": {"path": str(whole), "key": PUBLIC["release"], "stranger": PUBLIC["stranger"]},
        "small": str(small),
        "downloads": str(folder / "downloads"),
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


def test_plan_reads_what_a_browser_measured(web_setup):
    """The two files that the tests above saved: the page's, and the package's."""
    saved = [
        (web_setup["small"], "device.json", {1, 2}),
        (web_setup["bundles"]["fashion-mnist-litert"], "profile.json", {2}),
    ]
    for bundle, name, threads in saved:
        path = Path(web_setup["downloads"]) / name
        if not path.exists():
            pytest.skip("the tests that save it did not run")
        device = read_device(path)  # with all of its rules, the fingerprint's too
        assert device.connection == Browser()
        assert {one.threads for one in device.measurements} == threads
        assert {one.bundle_sha256 for one in device.measurements} == {Bundle.open(bundle).sha256}
        done = CliRunner().invoke(plan, ["--profile", str(path), "--budget-ms", "10000", "--json", bundle])
        assert done.exit_code == 0, done.output
        chosen = json.loads(done.stdout)["chosen"]
        assert (chosen["engine"], chosen["threads"] in threads) == ("litert", True)
    with pytest.raises(DeviceError, match="a browser cannot be reached from here; open the page"):
        connect(device).hardware()


def test_the_scheduler_without_a_browser(node):
    text = _tests(node, "test/session.test.js")
    assert _report(text) is None
    assert text.count("\nok ") >= 25
