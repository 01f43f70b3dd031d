"""``paraedge compare``: the document, the table and the plot."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from paraedge.cli.compare import compare
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
    done = CliRunner().invoke(compare, [*paths, *options, "--json", "--png", str(png)])
    document = json.loads(done.stdout)
    assert [one["path"] for one in document["bundles"]] == paths
    assert (document["num_samples"], document["png"]) == (20, str(png))
    with Image.open(png) as image:
        assert image.width > 1000
        assert len(np.unique(np.asarray(image.convert("L")))) > 10

    text = CliRunner().invoke(compare, [*paths, *options]).stdout
    assert "two" in text
    assert "20 test images that ship with the packaged model" in text


def test_an_image_of_another_kind_is_refused_before_the_work(pair, tmp_path):
    done = CliRunner().invoke(compare, [str(pair[0].path), "--png", str(tmp_path / "sizes.svg")])
    assert isinstance(done.exception, InputError)
    assert "the plot is a PNG" in str(done.exception)
