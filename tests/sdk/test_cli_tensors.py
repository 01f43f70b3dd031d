"""Commands on bundles that read tensors or make vectors: those that work with them, and those that name another."""

import json
import shlex

import pytest
from click.testing import CliRunner
from PIL import Image
from support.tensor_branches import EmbeddingBranches, MotionBranches, SoundBranches, describe

from paraedge.cli.main import paraedge
from paraedge_converters.description import EvaluationSet
from paraedge_converters.pipeline import convert
from paraedge_measure.device import Device, merge, write_device
from paraedge_measure.hardware import read_hardware
from paraedge_measure.profiling import SeriesLength, profile_bundle
from paraedge_runtime import InputError


@pytest.fixture(scope="module")
def sensors(tmp_path_factory):
    """Bundles of sound, which knows its accuracy, of motion, and of an embedding; in a folder with a space."""
    folder = tmp_path_factory.mktemp("sensors") / "my bundles"
    folder.mkdir()
    made = {}
    for name, make in (("sound", SoundBranches), ("motion", MotionBranches), ("embedding", EmbeddingBranches)):
        model = make().eval()
        description = describe(model)
        if name == "sound":
            test_set = EvaluationSet(
                samples=description.samples, labels=description.sample_labels, dataset="tones of the test"
            )
            description = describe(model, test_set=test_set)
        made[name] = convert(model, description, folder / f"{name}.paraedge", target="linux", engine="onnxruntime")
    return made


def refusal(*arguments):
    done = CliRunner().invoke(paraedge, [str(argument) for argument in arguments])
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


@pytest.mark.parametrize("name", ["sound", "motion", "embedding"])
def test_compare_runs_the_golden_inputs(sensors, name, tmp_path):
    path, png = str(sensors[name].path), tmp_path / "sizes.png"
    options = ["--rounds", "1", "--limit", "9"]
    known = len(sensors[name].golden().inputs)
    done = CliRunner().invoke(paraedge, ["compare", path, path, *options, "--plot", str(png), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["inputs"], document["num_samples"]) == ("golden inputs of the bundle", min(9, known))
    first = document["bundles"][0]
    text = CliRunner().invoke(paraedge, ["compare", path, *options]).stdout
    if name == "embedding":
        assert (first["prefix_accuracy"], first["agreement"]) == (None, None)
        assert len(first["prefix_relative_error"]) == len(first["prefix_snr_db"]) == 3
        assert "relative" in text
        assert "equal" in text
    else:
        assert first["agreement"] == 1.0
        assert first["prefix_relative_error"] is None
        assert "100.00 %" in text or "100.0 %" in text
    with Image.open(png) as image:
        assert image.width > 1000


def test_compare_of_tensors_has_no_data_set(sensors):
    said = refusal("compare", sensors["motion"].path, "--dataset", "digits")
    assert said.endswith("leave out --dataset and --data-dir to compare on its golden inputs")


@pytest.mark.parametrize("name", ["sound", "motion", "embedding"])
@pytest.mark.parametrize(
    ("command", "hint", "tried"),
    [
        ("evaluate", "paraedge compare", ["--rounds", "1"]),
        ("bench", "paraedge profile", None),  # takes seconds; the next test runs it
    ],
)
def test_what_needs_images_refuses_in_one_line_that_names_what_works(sensors, name, command, hint, tried):
    path = sensors[name].path
    said = refusal(command, path)
    named = f"{hint} {shlex.quote(str(path))}"
    what = "classifies neither images nor signals of a known rate"
    assert said.startswith(f"{path} {what}, which this command needs; '{named}' ")
    assert "\n" not in said
    if tried is not None:
        done = CliRunner().invoke(paraedge, [*shlex.split(named)[1:], *tried])
        assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def device(sensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("device") / "device.json"
    device = Device(name="here", hardware=read_hardware())
    for bundle in sensors.values():
        device = merge(device, profile_bundle(bundle, threads=[1], length=SeriesLength(min_runs=5, min_s=0.01)))
    write_device(device, path)
    return path


def test_profile_measures_an_embedding(sensors, tmp_path):
    path = tmp_path / "device.json"
    done = CliRunner().invoke(
        paraedge, ["profile", str(path), str(sensors["embedding"].path), "--threads", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    (measurement,) = json.loads(done.stdout)["device"]["measurements"]
    assert measurement["bundle_sha256"] == sensors["embedding"].sha256
    assert list(measurement["parts"]) == ["stem", "branch_00", "branch_01", "branch_02"]


def test_plan_chooses_by_the_accuracy_that_was_measured_at_export(sensors, device):
    arguments = ["plan", str(sensors["sound"].path), "--profile", str(device), "--budget-ms", "10000", "--json"]
    done = CliRunner().invoke(paraedge, arguments)
    assert done.exit_code == 0, done.output
    chosen = json.loads(done.stdout)["chosen"]
    assert chosen["accuracy"] == max(sensors["sound"].card.accuracy.prefix_accuracy)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("motion", "has no accuracy; convert the model again with a test_set in its ModelDescription"),
        ("embedding", "outputs a vector, which has no accuracy to choose by; 'paraedge compare' shows"),
    ],
)
def test_plan_refuses_what_has_no_accuracy(sensors, device, name, problem):
    assert problem in refusal("plan", sensors[name].path, "--profile", device, "--budget-ms", "10")
