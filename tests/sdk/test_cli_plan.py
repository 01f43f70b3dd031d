"""``paraedge plan`` and what exporting does with its choice, as users meet them."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from msgspec.structs import replace
from support.bundles import edit_card
from support.devices import DEVICE, MEASUREMENT, latency

from paraedge.exporting import export
from paraedge_measure.device import read_device, write_device
from paraedge_measure.evaluation import Evaluation
from paraedge_measure.planning import read_plan
from paraedge_runtime import Bundle

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


def test_a_plan_is_made_and_exported(folder, bundles, checkpoint):
    bundle = bundles["litert"]
    arguments = ["plan", "--profile", "device.json", "--budget-ms", "7", bundle.path]
    text = run(*arguments, "--max-bytes", "2MB", "--min-accuracy", ".9", "--out", "plan.json", cwd=folder)
    assert "→" in text
    assert "Next: paraedge export --plan plan.json" in text
    # On two threads 3 branches and 4 take 1 + 2 · 2 ms, p95 6.5 ms; by the test images the fourth adds nothing.
    chosen = read_plan(folder / "plan.json")
    assert (chosen.branches, chosen.p50_ms, chosen.p95_ms, chosen.threads) == ((0, 1, 2), 5.0, 6.5, 2)
    assert "half of the test images that was not used to choose" in text
    judged = Evaluation(checkpoint.evaluation.branch_logits[:, 1::2], checkpoint.evaluation.labels[1::2])
    assert chosen.accuracy == max(judged.prefix_accuracy()[:4])

    document = json.loads(run(*arguments, "--json", cwd=folder))
    assert document["chosen"]["threads"] == 2
    p95 = [one["p95_ms"] for one in document["pareto"]]
    assert p95 == sorted(p95)

    run("export", "--plan", "plan.json", "--out", "planned.paraedge", cwd=folder)
    planned = Bundle.open(folder / "planned.paraedge").manifest
    assert (planned.branch_indexes, planned.engine, planned.target) == (chosen.branches, "litert", "linux")


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """All branches of the packaged CIFAR-10 model."""
    return export("cifar10", target="linux", engine="litert", out=tmp_path_factory.mktemp("cifar10") / "all.paraedge")


@pytest.fixture
def unequal(tmp_path, cifar10):
    """A device on which cifar10 was measured: its branches take 1, 1, 2 and 7 ms, the stem 1 ms."""
    parts = {f"branch_{n:02d}": latency(ms) for n, ms in enumerate((1.0, 1.0, 2.0, 7.0))}
    one = replace(
        MEASUREMENT,
        bundle_name="cifar10",
        bundle_sha256=cifar10.sha256,
        parts={"stem": latency(1.0), **parts},
        request=latency(12.0),
        contention=(1.0,),
        threads=1,
    )
    write_device(replace(DEVICE, measurements=(one,)), tmp_path / "device.json")
    return tmp_path


def test_other_branches_than_the_first_are_planned_and_exported(unequal, cifar10):
    # p95 is 1.3 times p50: the first three branches take 6.5 ms; the last alone, as accurate as all, 10.4.
    arguments = ["plan", "--profile", "device.json", "--budget-ms", "11.8", cifar10.path]
    document = json.loads(run(*arguments, "--json", cwd=unequal))
    assert [3] in [one["branches"] for one in document["pareto"]]
    assert document["chosen"]["branches"] == [3]

    text = run(*arguments, "--out", "plan.json", cwd=unequal)
    assert re.search(r"→ +3 +litert", text)
    assert "Next: paraedge export --plan plan.json --model cifar10" in text
    run("export", "--plan", "plan.json", "--model", "cifar10", cwd=unequal)
    planned = Bundle.open(unequal / "cifar10-linux-only-3.paraedge")
    assert planned.manifest.branch_indexes == (3,)
    best_prefix = cifar10.card.accuracy.prefix_accuracy[2]
    assert planned.card.accuracy.prefix_accuracy[0] > best_prefix


def test_whose_logits_they_are_is_not_guessed(unequal, cifar10):
    arguments = ["plan", "--profile", "device.json", "--budget-ms", "11.8"]
    line = run(*arguments, cifar10.path, "--model", "fashion-mnist", cwd=unequal, code=2)
    assert "all.paraedge was not exported from this model: their accuracies differ; name its own checkpoint" in line

    # A model of the user's own that has a packaged one's name: what is known of it are the first branches.
    shutil.copytree(cifar10.path, unequal / "own.paraedge")
    edit_card(unequal / "own.paraedge", lambda card: card["accuracy"].update(prefix_accuracy=[0.1, 0.2, 0.3, 0.4]))
    own = Bundle.open(unequal / "own.paraedge")
    device = read_device(unequal / "device.json")
    write_device(
        replace(device, measurements=(replace(device.measurements[0], bundle_sha256=own.sha256),)),
        unequal / "device.json",
    )
    text = run(*arguments, "own.paraedge", cwd=unequal)
    assert "own.paraedge: only its first branches were considered; --model CHECKPOINT considers others." in text
    assert re.search(r"→ +0-2 +litert", text)


def test_the_recipe_that_was_planned_is_exported(folder):
    arguments = ["plan", "--profile", "device.json", "--budget-ms", "9", "small.paraedge"]
    export(target="linux", engine="litert", branches=2, quantize="int8-dynamic", out=folder / "small.paraedge")
    device = read_device(folder / "device.json")

    def measure(changes):
        edit_card(folder / "small.paraedge", lambda card: card.update(changes))
        small = Bundle.open(folder / "small.paraedge")
        parts = {name: latency(1.0) for name in ("stem", "branch_00", "branch_01")}
        one = replace(device.measurements[0], bundle_sha256=small.sha256, parts=parts, request=latency(3.0))
        write_device(replace(device, measurements=(one,)), folder / "device.json")

    measure({})  # exported without --data-dir
    line = run(*arguments, cwd=folder, code=2)
    assert "small.paraedge has no accuracy; export it again, with --data-dir" in line

    measure({"accuracy": {"dataset": "test", "num_samples": 10_000, "prefix_accuracy": [0.9226, 0.9256]}})
    text = run(*arguments, "--out", "plan.json", cwd=folder)
    assert "only its first branches were considered; the accuracy of other branches in int8-dynamic" in text
    line = run(*arguments, "--model", "fashion-mnist", cwd=folder, code=2)
    assert "small.paraedge is int8-dynamic" in line
    run("export", "--plan", "plan.json", "--out", "planned.paraedge", cwd=folder)
    planned = Bundle.open(folder / "planned.paraedge").manifest
    assert (planned.branch_indexes, planned.quantization) == ((0, 1), "int8-dynamic")


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--budget-ms", "0"], 2, "budget_ms must be above 0, got 0.0"),
        (["--budget-ms", "-3"], 2, "budget_ms must be above 0, got -3.0"),
        (["--budget-ms", "nan"], 2, "budget_ms must be a number, got nan"),
        (["--budget-ms", "soon"], 2, "'soon' is not a valid float"),
        (["--budget-ms", "9", "--min-accuracy", "90"], 2, "min_accuracy must be from 0 to 1, such as 0.9, got 90.0"),
        (["--budget-ms", "9", "--max-bytes", "2 cats"], 2, "'2 cats' is not a size, such as 2MB"),
        (["--budget-ms", "9", "--max-bytes", "0MB"], 2, "'0MB' is not a size"),
        (["--budget-ms", "1"], 2, "no choice satisfies p95 within 1 ms; the nearest is branch 0 with litert"),
        (["--budget-ms", "9", "--min-accuracy", ".99"], 2, "accuracy of at least 0.99; the nearest is"),
        (["--budget-ms", "9", "--profile", "none.json"], 2, "none.json does not exist; make it: paraedge profile"),
        (
            ["--budget-ms", "9", "--model", "nonsense"],
            2,
            "nonsense is neither a packaged model (fashion-mnist",
        ),
        (["--budget-ms", "9", "--out", "."], 2, ". exists and is not a plan that paraedge wrote"),
    ],
)
def test_mistakes_and_wishes_that_cannot_be(folder, bundles, arguments, code, problem):
    line = run("plan", "--profile", "device.json", *arguments, bundles["litert"].path, cwd=folder, code=code)
    assert problem in line


def test_a_bundle_that_was_not_measured(folder, bundles):
    bundle = bundles["litert"].subset((0, 1), folder / "small.paraedge")
    line = run("plan", "--profile", "device.json", "--budget-ms", "9", bundle.path, cwd=folder, code=2)
    assert "small.paraedge was not measured on pi-5; run 'paraedge profile'" in line


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Missing option '--target'; see 'paraedge targets', or give a --plan"),
        (["--plan", "plan.json", "--target", "linux"], "remove --target, --engine, --branches and --quantize"),
        (["--plan", "plan.json", "--branches", "2"], "remove --target, --engine, --branches and --quantize"),
        (["--plan", "plan.json", "--quantize", "fp16"], "remove --target, --engine, --branches and --quantize"),
        (
            ["--plan", "none.json"],
            "none.json does not exist; make it: paraedge plan --profile device.json --budget-ms 10 --out none.json",
        ),
        (["--plan", "device.json"], "device.json: Invalid enum value 'paraedge-device/1'"),
        (["--plan", "plan.json", "--model", "cifar10"], "plan.json is a plan for fashion-mnist, not cifar10"),
    ],
)
def test_what_export_refuses(folder, bundles, arguments, problem):
    run(
        "plan", "--profile", "device.json", "--budget-ms", "9", bundles["litert"].path, "--out", "plan.json", cwd=folder
    )
    assert problem in run("export", *arguments, cwd=folder, code=2)
