"""What a device has: environments of their own, without torch, that run what a workstation exported."""

import json
import os
import subprocess
import sys

import pytest
from support.wheels import DeviceEnvironment, wheel_of_this_machine

# The environments: what provides the engine -> engine, packages installed by name (so that nothing else
# comes along), packages installed without what they ask for: executorch asks for a workstation's.
BASE = ["click", "rich", "msgspec"]  # without Pillow, so that it is known what needs that
ENVIRONMENTS = {
    "ai-edge-litert": ("litert", [*BASE, "numpy", "ai-edge-litert"], []),
    "tflite-runtime": ("litert", [*BASE, "numpy<2", "tflite-runtime==2.14.0"], []),
    "executorch": ("executorch", [*BASE, "numpy"], ["executorch==1.5.1"]),
}


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def device(request, tmp_path_factory):
    environment = DeviceEnvironment(tmp_path_factory.mktemp("device"))
    _, packages, alone = ENVIRONMENTS[request.param]
    environment.install(*packages)
    environment.install("--no-deps", *alone, wheel_of_this_machine())
    return request.param, environment


def paraedge(device, *arguments, code=0):
    programs = device[1].python.parent
    done = subprocess.run(
        [programs / "paraedge", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PARAEDGE_CACHE": str(programs.parent / "cache")},  # a device's own, with nothing in it
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


@pytest.mark.environment
def test_a_device_runs_verifies_inspects_and_makes_subsets(device, bundles, tmp_path):
    engine = ENVIRONMENTS[device[0]][0]
    bundle = bundles[engine].path
    assert not {"torch", "pillow"} & device[1].packages()

    assert "verified" in paraedge(device, "verify", bundle)
    assert "branch_07" in paraedge(device, "inspect", bundle)
    lines = paraedge(device, "run", bundle, "--threads", 2, "--json").splitlines()
    results = [json.loads(line) for line in lines]
    assert len(results) == 32
    assert {result["engine"].split()[0] for result in results} == {device[0]}
    here = {result["input"]: result["output"] for result in _run_here(bundle)}
    for result in results:
        assert max(abs(a - b) for a, b in zip(result["output"], here[result["input"]], strict=True)) < 1e-4

    paraedge(device, "subset", bundle, "--branches", "0,3,5", "--out", tmp_path / "small.paraedge")
    assert "verified" in paraedge(device, "verify", tmp_path / "small.paraedge")
    measured = paraedge(device, "profile", tmp_path / "device.json", tmp_path / "small.paraedge", "--threads", 2)
    assert "branch_05" in measured
    paraedge(device, "pack", tmp_path / "small.paraedge")
    assert paraedge(device, "run", tmp_path / "small.paraedge.zip")
    document = json.loads(paraedge(device, "doctor", "--json"))
    assert [name for name, state in document["engines"].items() if state["works"]] == [engine]
    assert document["engines"][engine]["parallel"]


@pytest.mark.environment
def test_what_is_missing_on_a_device_is_said_in_one_line(device, bundles, tmp_path):
    (tmp_path / "image.png").write_bytes(b"")
    rows = [
        (["run", bundles["onnxruntime"].path], "the engine 'onnxruntime' is not installed"),
        (["run", bundles[ENVIRONMENTS[device[0]][0]].path, tmp_path / "image.png"], "pip install 'paraedge[cli]'"),
        (["run"], "the packaged models are not installed; export one on a workstation"),
        (["models"], "or 'paraedge[models]' alone"),
        (["export", "--target", "linux", "--branches", "2"], "pip install 'paraedge[export]' on a workstation"),
        (["train", "--dataset", "digits", "--out", tmp_path / "x"], "pip install 'paraedge[export]'"),
        (["evaluate"], "pip install 'paraedge[export]' on a workstation"),
    ]
    for arguments, message in rows:
        error = paraedge(device, *arguments, code=2)
        assert message in error, error
        assert "Traceback" not in error
        assert error.strip().splitlines()[-1].startswith("Error: ")


@pytest.fixture(scope="module")
def bare_device(tmp_path_factory):
    """What ``pip install 'paraedge[litert]'`` makes."""
    environment = DeviceEnvironment(tmp_path_factory.mktemp("bare"))
    environment.install(f"{wheel_of_this_machine()}[litert]")
    return environment


ON_THE_DEVICE = """
import json, sys
from paraedge_runtime import Bundle, Session

bundle = Bundle.open(sys.argv[1])
with Session.open(bundle, threads=2) as session:
    predictions = [session.run(image, budget_ms=20_000) for image in bundle.golden().inputs]
print(json.dumps([[float(value) for value in prediction.output] for prediction in predictions]))
"""


@pytest.mark.environment
def test_a_device_without_the_command_line_runs_a_bundle_and_can_be_measured(bare_device, bundles, tmp_path):
    packages = bare_device.packages()
    assert {"numpy", "msgspec", "ai-edge-litert", "paraedge"} <= packages
    assert not {"click", "rich", "pillow", "torch", "matplotlib"} & packages

    bundle = bundles["litert"].path
    predicted = json.loads(bare_device.run(ON_THE_DEVICE, bundle))
    outputs = [result["output"] for result in _run_here(bundle)]
    for here, there in zip(outputs, predicted, strict=True):
        assert max(abs(one - other) for one, other in zip(here, there, strict=True)) < 1e-4

    options = ["--threads", "2", "--min-runs", "5", "--min-s", "0.01"]
    command = [bare_device.python, "-m", "paraedge_measure", "measure", bundle, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (measurement,) = json.loads(done.stdout)["result"]
    assert len(measurement["parts"]) == 9


@pytest.mark.environment
@pytest.mark.parametrize(
    ("program", "extra"), [("paraedge", "pip install 'paraedge[cli]'"), ("paraedge-demo", "'paraedge[demo,litert]'")]
)
def test_without_its_extra_a_program_says_what_to_install(bare_device, program, extra):
    command = [bare_device.python.parent / program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert extra in line


def _run_here(bundle):
    code = "import sys; sys.argv[0] = 'paraedge'; from paraedge.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "run", bundle, "--json"], capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]
