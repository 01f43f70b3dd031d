"""``export --model my_net.py:make``: a network of the user's own on the command line."""

import json
import sys

import pytest
from click.testing import CliRunner

from paraedge.cli._own_network import is_own_network, own_network
from paraedge.cli.export import export
from paraedge_runtime import Bundle, InputError
from paraedge_runtime.errors import UnsupportedModel

NET = """
import numpy as np
from beside import Branch, SPEC, nn
from paraedge import ModelDescription, load_dataset

print("made by", __name__)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.branches = nn.Conv2d(1, 4, 3, 2, 1), nn.ModuleList([Branch(), Branch()])
        self.input_spec, self.num_outputs = SPEC, 10


def alone():
    return Net()


def make():
    test = load_dataset("digits").test
    labels = [str(digit) for digit in range(10)]
    return Net(), ModelDescription(
        name="own", description="of a test", license="MIT", labels=labels, samples=test.images[:32],
        sample_labels=test.labels[:32],
    )


def nothing():
    pass


def raises():
    return 1 / 0


def leaves():
    raise SystemExit(3)


def wrong():
    return Net(), {"name": "own"}
"""
BESIDE = """
from torch import nn
from paraedge import ImageInput

SPEC = ImageInput(name="image", shape=(1, 1, 8, 8), mean=(0.3,), std=(0.35,))


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """``own_net.py``, which imports a file beside it."""
    (tmp_path / "own_net.py").write_text(NET)
    (tmp_path / "beside.py").write_text(BESIDE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_net", "beside", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path / "own_net.py"
    for name in ("own_net", "beside", "broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("model", ["net.py:make", "a/b c/net.py:make_it", "C:/net.py:make"])
def test_a_function_in_a_file_is_an_own_network(model):
    assert is_own_network(model)


@pytest.mark.parametrize("model", ["net.py", "fashion-mnist", "my-model", "net.py:", "net.py:a.b", "net.py:1"])
def test_other_models_are_none(model):
    assert not is_own_network(model)


def test_export_makes_a_bundle_of_it_measured_on_a_data_set(file, tmp_path):
    out = tmp_path / "own.paraedge"
    options = ["--target", "linux", "--model", f"{file}:make", "--dataset", "digits", "--out", str(out), "--json"]
    done = CliRunner().invoke(export, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["manifest"]["name"] == "own"  # what the file prints goes to standard error
    assert "made by own_net" in done.stderr
    bundle = Bundle.open(out)
    assert bundle.manifest.labels == tuple("0123456789")
    assert bundle.card.accuracy.num_samples == 360


def test_a_model_alone_is_described_by_the_data_set(file):
    network, description = own_network(f"{file}:alone", "digits", None, 0.01)
    assert (len(network.branches), description.name, description.labels) == (2, "own_net", tuple("0123456789"))
    assert len(description.samples) == 256
    assert len(description.test_set.labels) == 360
    assert "CC BY 4.0" in description.license


@pytest.mark.parametrize(
    ("function", "error", "problem"),
    [
        (
            "alone",
            InputError,
            "returned only a model; return .model, ModelDescription.* or name its data set with --dataset",
        ),
        ("nothing", UnsupportedModel, "NoneType has no stem, branches, input_spec, num_outputs"),
        ("raises", InputError, r"own_net\.py:34 raised ZeroDivisionError: division by zero; fix it there"),
        ("leaves", InputError, r"own_net\.py:38 raised SystemExit: 3"),
        ("wrong", InputError, r"must return \(model, ModelDescription\), got \(model, dict\)"),
        ("mak", InputError, "has no function 'mak'; its functions are: alone, make, nothing, raises, leaves, wrong"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file, function, error, problem):
    with pytest.raises(error, match=problem) as caught:
        own_network(f"{file}:{function}", None, None, 0.01)
    assert "\n" not in str(caught.value)


def test_the_line_is_that_of_a_file_beside_the_caller_too(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    with pytest.raises(InputError, match=r"^own_net\.py:34 raised ZeroDivisionError"):
        own_network("own_net.py:raises", None, None, 0.01)


@pytest.mark.parametrize("end", ["", ":", ":a.b"])
def test_a_file_without_its_function_is_said_so(file, end):
    done = CliRunner().invoke(export, ["--target", "linux", "--model", f"{file}{end}"])
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == f"{file}{end} names no function; add the one that returns the network: my_net.py:make"


def test_files_that_cannot_be_run_are_refused(file, tmp_path):
    with pytest.raises(InputError, match=r"none\.py does not exist; name a Python file and a function in it"):
        own_network(f"{tmp_path}/none.py:make", None, None, 0.01)
    (tmp_path / "broken.py").write_text("x = 1\ndef make(:\n")
    with pytest.raises(InputError, match=r"broken\.py:2 raised SyntaxError"):
        own_network(f"{tmp_path}/broken.py:make", None, None, 0.01)


def test_auto_is_for_checkpoints(file):
    done = CliRunner().invoke(export, ["--target", "linux", "--model", f"{file}:make", "--quantize", "auto"])
    assert done.exit_code == 2
    assert "--quantize auto is for checkpoints" in done.output
