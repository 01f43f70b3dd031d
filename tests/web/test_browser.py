"""The package in headless Chromium, on bundles exported here: ``runtime/web/test/browser`` has the tests."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from support.keys import PUBLIC, signed, write_keys
from support.recordings import write_wav
from support.web_tones import TONES_HZ, ToneBranches, description, tone

from paraedge.cli.plan import plan
from paraedge.exporting import export
from paraedge.web import WEB_ENGINES, make_site
from paraedge_converters.pipeline import convert
from paraedge_converters.recipes import RECIPES
from paraedge_measure.connections import connect
from paraedge_measure.device import Browser, read_device
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import DeviceError
from paraedge_runtime.inputs import fitted_image

# name -> (model, engine, recipe, branches): both engines, both packaged models, floats and integers.
BUNDLES = {
    "fashion-mnist-litert": ("fashion-mnist", "litert", "fp32", None),
    "fashion-mnist-onnxruntime": ("fashion-mnist", "onnxruntime", "int8-dynamic", 4),
    "cifar10-litert": ("cifar10", "litert", "int8-dynamic", 2),
    "cifar10-onnxruntime": ("cifar10", "onnxruntime", "fp32", 2),
}


@pytest.fixture(scope="session")
def web_setup(node, chromium, photograph, tmp_path_factory):
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
    # And one that hears. Microphones have other rates than bundles.
    tones = convert(ToneBranches().eval(), description(), folder / "tones.paraedge", target="web", engine="litert").path
    wav = write_wav(folder / "high.wav", tone(TONES_HZ["high"], 2, 44100), 44100)
    for path in (whole, small, tones):
        signed(path, keys)
    site = make_site(folder / "site", [whole, small, tones], trusted_keys=PUBLIC["release"])
    (folder / "downloads").mkdir()
    (folder / "photo").mkdir()
    shutil.copy(photograph, folder / "photo" / "photo.jpg")
    expected = fitted_image(Image.open(photograph), 96, 128, 3, "crop").transpose(2, 0, 1)  # (C, H, W)
    (folder / "photo" / "expected").write_bytes(expected.tobytes())
    return {
        "chromium": chromium,
        "engines": str(folder / "engines"),
        "bundles": bundles,
        "signed": {"path": str(whole), "key": PUBLIC["release"], "stranger": PUBLIC["stranger"]},
        "small": str(small),
        "zip": str(Bundle.open(small).pack(folder / "small.zip")),
        "photo": str(folder / "photo"),
        "wav": str(wav),
        "downloads": str(folder / "downloads"),
        "site": str(site),
    }


def _report(text):
    """What node's test runner printed, if not every test passed."""
    return text if "# fail 0" not in text or "# skipped 0" not in text else None


def _tests(node, file, **options):
    return node("--test", "--test-reporter=tap", file, **options)


def test_the_package_in_chromium(node, web_setup):
    text = _tests(node, "test/browser/session.test.js", timeout_s=900, PARAEDGE_WEB_SETUP=json.dumps(web_setup))
    assert _report(text) is None
    assert text.count("\nok ") >= 9


def test_golden_predictions_in_chromium(node, web_setup):
    text = _tests(node, "test/browser/golden.test.js", timeout_s=600, PARAEDGE_WEB_SETUP=json.dumps(web_setup))
    assert _report(text) is None
    assert text.count("\nok ") == len(BUNDLES)


@pytest.fixture(scope="session")
def every_recipe(web_setup, tmp_path_factory):
    """A branch of Fashion-MNIST's model in each recipe of each engine, and one of photographs."""
    folder = tmp_path_factory.mktemp("recipes")
    wanted = [("waste", "litert", "int8-dynamic")]
    for engine in WEB_ENGINES:
        wanted += [("fashion-mnist", engine, name) for name, recipe in RECIPES.items() if engine not in recipe.refused]
    bundles = {}
    for model, engine, recipe in wanted:
        name = f"{model}-{engine}-{recipe}"
        path = folder / f"{name}.paraedge"
        bundles[name] = str(export(model, target="web", engine=engine, quantize=recipe, branches=1, out=path).path)
    return {**web_setup, "bundles": bundles}


@pytest.mark.slow
def test_golden_predictions_of_every_recipe(node, every_recipe):
    text = _tests(node, "test/browser/golden.test.js", timeout_s=900, PARAEDGE_WEB_SETUP=json.dumps(every_recipe))
    assert _report(text) is None
    assert text.count("\nok ") == len(every_recipe["bundles"]) >= 11


def test_the_page_in_chromium(node, web_setup):
    text = _tests(node, "test/browser/page.test.js", timeout_s=900, PARAEDGE_WEB_SETUP=json.dumps(web_setup))
    assert _report(text) is None
    assert text.count("\nok ") >= 5


def test_the_package_in_firefox_and_webkit(node, web_setup, other_browsers):
    setup = json.dumps({**web_setup, "others": other_browsers})
    text = _tests(node, "test/browser/others.test.js", timeout_s=900, PARAEDGE_WEB_SETUP=setup)
    assert _report(text) is None
    assert text.count("\nok ") == 2


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


@pytest.mark.parametrize(("file", "least"), [("session", 38), ("resampler", 7), ("memory", 3)])
def test_what_needs_no_browser(node, file, least):
    text = _tests(node, f"test/{file}.test.js")
    assert _report(text) is None
    assert text.count("\nok ") >= least
