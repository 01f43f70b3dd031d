"""``paraedge plan`` and what exporting does with its choice, as users meet them."""

import json
import os
import subprocess
import sys

import pytest
from msgspec.structs import replace
from support.devices import DEVICE, MEASUREMENT, latency

from paraedge_runtime import Bundle
from paraedge_runtime.device import write_device
from paraedge_runtime.planning import read_plan

PARAEDGE = [sys.executable, "-c", "import sys; sys.argv[0] = 'paraedge'; from paraedge.cli.main import main; main()"]


def run(*arguments, cwd, code=0):
    done = subprocess.run(
        [*PARAEDGE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        timeout=280,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr.strip().splitlines()[-1]


@pytest.fixture
def folder(tmp_path, bundles):
    """A device on which the packaged model was measured: the stem takes 1 ms, each of 8 branches 2 ms."""
    bundle = bundles["litert"]
    parts = {"stem": latency(1.0), **{f"branch_{n:02d}": latency(2.0) for n in range(8)}}
    one = replace(
        MEASUREMENT,
        bundle_name="fashion-mnist",
        bundle_sha256=bundle.sha256,
        parts=parts,
        request=latency(17.0),
        contention=(1.0,),
        threads=1,
    )
    two = replace(one, request=latency(9.0), contention=(1.0, 1.0), threads=2)
    write_device(replace(DEVICE, measurements=(one, two)), tmp_path / "device.json")
    return tmp_path


def test_a_plan_is_made_and_exported(folder, bundles):
    bundle = bundles["litert"]
    arguments = ["plan", "--device", "device.json", "--budget-ms", "7", bundle.path]
    text = run(*arguments, "--max-bytes", "2MB", "--min-accuracy", ".9", "--out", "plan.json", cwd=folder)
    assert "→" in text
    assert "Next: paraedge export --plan plan.json" in text
    # On two threads, 4 branches take 1 + 4 ms, p95 6.5 ms, and are the most that fit.
    chosen = read_plan(folder / "plan.json")
    assert (chosen.p50_ms, chosen.p95_ms, chosen.threads) == (5.0, 6.5, 2)
    accuracy = bundle.manifest.accuracy.prefix_accuracy
    assert chosen.accuracy == max(accuracy[: len(chosen.branches)])

    document = json.loads(run(*arguments, "--json", cwd=folder))
    assert document["chosen"]["threads"] == 2
    p95 = [one["p95_ms"] for one in document["pareto"]]
    assert p95 == sorted(p95)

    run("export", "--plan", "plan.json", "--out", "planned.paraedge", cwd=folder)
    planned = Bundle.open(folder / "planned.paraedge").manifest
    assert (planned.branch_indexes, planned.engine, planned.target) == (chosen.branches, "litert", "linux")


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--budget-ms", "0"], 2, "no plan can be made for {'budget_ms': 0.0"),
        (["--budget-ms", "-3"], 2, "Expected `float` > 0"),
        (["--budget-ms", "nan"], 2, "Expected `float` > 0"),
        (["--budget-ms", "soon"], 2, "'soon' is not a valid float"),
        (["--budget-ms", "9", "--min-accuracy", "90"], 2, "Expected `float` <= 1"),
        (["--budget-ms", "9", "--max-bytes", "2 cats"], 2, "'2 cats' is no size; write it as 2MB"),
        (["--budget-ms", "9", "--max-bytes", "0MB"], 2, "'0MB' is no size"),
        (["--budget-ms", "1"], 2, "nothing gives p95 within 1 ms; the nearest is 1 branch(es) with litert"),
        (["--budget-ms", "9", "--min-accuracy", ".99"], 2, "accuracy of at least 0.99; the nearest is"),
        (["--budget-ms", "9", "--device", "none.json"], 2, "none.json does not exist; make it with 'paraedge profile"),
    ],
)
def test_mistakes_and_wishes_that_cannot_be(folder, bundles, arguments, code, problem):
    line = run("plan", "--device", "device.json", *arguments, bundles["litert"].path, cwd=folder, code=code)
    assert problem in line


def test_a_bundle_that_was_not_measured(folder, bundles):
    bundle = bundles["litert"].subset((0, 1), folder / "small.paraedge")
    line = run("plan", "--device", "device.json", "--budget-ms", "9", bundle.path, cwd=folder, code=2)
    assert "small.paraedge was not measured on pi-5; run 'paraedge profile'" in line


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Missing option '--target'; 'paraedge targets' lists them"),
        (["--plan", "plan.json", "--target", "linux"], "leave --target, --engine, --branches out"),
        (["--plan", "plan.json", "--branches", "2"], "leave --target, --engine, --branches out"),
        (["--plan", "none.json"], "none.json does not exist; make it with 'paraedge plan --out"),
        (["--plan", "device.json"], "device.json: Invalid enum value 'paraedge-device/1'"),
        (["--plan", "plan.json", "--model", "cifar10"], "plan.json is for fashion-mnist, not cifar10"),
    ],
)
def test_what_export_refuses(folder, bundles, arguments, problem):
    run("plan", "--device", "device.json", "--budget-ms", "9", bundles["litert"].path, "--out", "plan.json", cwd=folder)
    assert problem in run("export", *arguments, cwd=folder, code=2)
