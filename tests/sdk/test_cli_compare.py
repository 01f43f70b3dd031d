"""``paraedge compare``: the document, the table and the plot."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from paraedge.cli.compare import _broken, _Limit, compare
from paraedge_measure import ComparedBundle
from paraedge_runtime import InputError


@pytest.fixture(scope="module")
def pair(bundles, tmp_path_factory):
    """Two branches in LiteRT, three in ONNX Runtime."""
    folder = tmp_path_factory.mktemp("pair")
    return (
        bundles["litert"].subset((0, 1), folder / "two.paraedge"),
        bundles["onnxruntime"].subset((0, 1, 2), folder / "three.paraedge"),
    )


def test_the_command_prints_a_document_a_table_and_an_image(pair, tmp_path):
    paths = [str(bundle.path) for bundle in pair]
    options = ["--limit", "20", "--rounds", "1"]
    png = tmp_path / "sizes.png"
    done = CliRunner().invoke(compare, [*paths, *options, "--json", "--plot", str(png)])
    document = json.loads(done.stdout)
    assert all(
        p95 >= p50
        for one in document["bundles"]
        for p50, p95 in zip(one["prefix_ms"], one["prefix_p95_ms"], strict=True)
    )
    assert [one["path"] for one in document["bundles"]] == paths
    assert (document["num_samples"], document["plot"]) == (20, str(png))
    with Image.open(png) as image:
        assert image.width > 1000
        assert len(np.unique(np.asarray(image.convert("L")))) > 10

    text = CliRunner().invoke(compare, [*paths, *options]).stdout
    assert "two" in text
    assert "20 test images that ship with the packaged model" in text


def test_an_image_of_another_kind_is_refused_before_the_work(pair, tmp_path):
    done = CliRunner().invoke(compare, [str(pair[0].path), "--plot", str(tmp_path / "sizes.svg")])
    assert isinstance(done.exception, InputError)
    assert "does not end in .png" in str(done.exception)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n precious")
    done = CliRunner().invoke(compare, [str(pair[0].path), "--plot", str(tmp_path / "photo.png")])
    assert "photo.png exists and is not a plot that paraedge wrote; choose another name" in str(done.exception)
    done = CliRunner().invoke(compare, [str(pair[0].path), "--plot", "."])
    assert ". does not end in .png; plots are PNG files, name it plot.png" in str(done.exception)


@pytest.mark.parametrize(("limit", "status"), [("p95:50%", 0), ("p95:49%", 1), ("accuracy:1", 0), ("accuracy:0.9", 1)])
def test_a_bundle_that_is_worse_than_the_first_is_status_1(pair, monkeypatch, limit, status):
    measured = [_compared("old", (0.9, 0.95), 2.0), _compared("new", (0.9, 0.94), 3.0)]
    monkeypatch.setattr("paraedge_measure.comparing.compare_bundles", lambda *arguments, **options: measured)
    paths = [str(bundle.path) for bundle in pair]
    for form in ([], ["--json"]):
        done = CliRunner().invoke(compare, [*paths, "--fail-on", limit, *form])
        assert done.exit_code == status
        assert ("Failed: new: " in done.stderr) == bool(status)
    assert len(json.loads(done.stdout)["failed"]) == status


def test_a_loss_of_accuracy_is_named_with_its_number_of_branches():
    first = _compared("old", (0.9, 0.95), 2.0)
    second = _compared("new", (0.9, 0.94), 2.0)
    (text,) = _broken(_Limit("accuracy", 0.5), ["old", "new"], [first, second])
    assert text == ("new: accuracy with 2 branches is 1.00 points lower (94.00 %, 95.00 % in old); the limit is 0.5")
    assert _broken(_Limit("accuracy", 1.0), ["old", "new"], [first, second]) == []


def _compared(path, accuracy, p95_ms):
    return ComparedBundle(
        path=path, name="m", engine="litert", quantization="fp32", size_bytes=1, prefix_bytes=(1, 2),
        prefix_ms=(1.0, 2.0), prefix_p95_ms=(1.0, p95_ms), prefix_accuracy=accuracy, agreement=1.0,
        prefix_relative_error=None, prefix_snr_db=None,
    )  # fmt: skip
