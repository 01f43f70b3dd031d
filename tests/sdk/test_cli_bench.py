"""``paraedge bench`` as its users meet it: a tiny grid on a real bundle, gone on with, drawn, and refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from paraedge_measure.deadlines.runner import ORACLES

PARAEDGE = [sys.executable, "-c", "import sys; sys.argv[0] = 'paraedge'; from paraedge.cli.main import main; main()"]
POLICIES = [*(f"static-{count}" for count in range(1, 8)), "all", "alert-any", "anytime", "anytime-early-stop"]
TINY = ("--requests", 16, "--block", 8, "--deadlines", "1.5")


def run(*arguments, cwd, code=0, **environment):
    done = subprocess.run(
        [*PARAEDGE, "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        timeout=280,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    if code == 0:
        return done.stdout
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles["executorch"].path


def test_a_tiny_grid_and_the_same_command_again(bundle, tmp_path):
    grid = (bundle, *TINY, "--arrivals", "closed,periodic", "--interference", "none,square", "--out", "b.jsonl")
    text = run(*grid, cwd=tmp_path)
    for part in ("closed, none, deadline 1.5", "periodic, square, deadline 1.5", "alert-any", "(best static)",
                 "oracle-dynamic", "anytime − alert-any:", "one branch alone fits", "records: b.jsonl"):  # fmt: skip
        assert part in text
    kept = (tmp_path / "b.jsonl").read_bytes()
    assert len(kept.splitlines()) == 1 + 4 * (len(POLICIES) + len(ORACLES))

    document = json.loads(run(*grid, "--plot", "b.png", "--json", cwd=tmp_path))
    assert (tmp_path / "b.jsonl").read_bytes() == kept  # nothing was measured again
    assert document["notes"] == ["4 of 4 cells were measured before; delete b.jsonl to begin anew"]
    assert [record["policy"] for record in document["records"][: len(POLICIES)]] == POLICIES
    for record in document["records"]:
        assert record["requests"] == 16
        assert 0 <= record["correct"] <= 16 - record["misses"]
        low, high = record["miss_rate_interval"]
        assert low <= record["miss_rate"] <= high
    assert len(document["prefix_accuracy"]) == 8
    assert len(document["cells"]) == 4
    with Image.open(tmp_path / "b.png") as image:
        assert image.size[0] > 600
        assert len(np.unique(np.asarray(image.convert("L")))) > 50


def test_what_is_missing_is_measured_and_a_line_cut_off_is_named(bundle, tmp_path):
    few = (bundle, *TINY, "--out", "b.jsonl", "--json")
    first = json.loads(run(*few, "--policies", "all", cwd=tmp_path))
    assert [record["policy"] for record in first["records"]] == ["all", *ORACLES]
    path = tmp_path / "b.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    second = json.loads(run(*few, "--policies", "all,anytime", cwd=tmp_path))
    assert "the last line of b.jsonl was cut off" in second["notes"][0]
    assert sorted(record["policy"] for record in second["records"]) == sorted(["all", "anytime", *ORACLES])
    assert second["records"][0] == first["records"][0]
    (comparison,) = [entry for entry in second["cells"][0]["comparisons"] if entry["against"] == "all"]
    assert comparison["in_turns"] is False


def test_a_policy_that_the_bundle_cannot_do_is_left_out_unless_asked_for(bundles, tmp_path):
    one = bundles["executorch"].subset((0, 3), tmp_path / "two.paraedge")  # thresholds are of all branches together
    document = json.loads(run(one.path, *TINY, "--json", cwd=tmp_path))
    policies = {record["policy"] for record in document["records"]}
    assert "static-1" in policies
    assert "anytime-early-stop" not in policies
    assert "without anytime-early-stop: early_stop needs thresholds" in document["notes"][0]
    assert document["out"] == "fashion-mnist-bench.jsonl"
    assert "early_stop needs thresholds" in run(
        one.path, *TINY, "--policies", "anytime-early-stop", "--out", "c.jsonl", cwd=tmp_path, code=2
    )


def test_a_throttled_cell_says_what_is_lowered(bundle, tmp_path):
    throttle = ("--interference", "throttle", "--throttle-period-s", "0.4", "--quota", "0.3")
    document = json.loads(run(bundle, *TINY, *throttle, "--policies", "static-1", "--json", cwd=tmp_path))
    assert document["notes"][0].startswith("throttle lowers ")
    cell = document["records"][0]["cell"]
    assert (cell["interference"], cell["quota"], cell["throttle_period_s"]) == ("throttle", 0.3, 0.4)


MISTAKES = [
    (["--deadlines", "0"], "invalid deadline 0.0: give a multiple of the full model's time"),
    (["--deadlines=-1"], "invalid deadline -1.0"),
    (["--deadlines", "nan"], "invalid deadline nan"),
    (["--deadlines", "soon"], "'soon' is not a list of numbers, such as 0.4,0.7"),
    (["--deadlines", ","], "name at least one deadline"),
    (["--arrivals", "rain"], "unknown arrivals 'rain'; choose from closed, periodic, poisson, bursty"),
    (["--interference", "noise"], "unknown interference 'noise'; choose from none, compute, memory, square, quota"),
    (["--policies", "luck"], "unknown policy 'luck'; choose from static, static-1, static-2"),
    (["--requests", "0"], "--requests must be an integer of at least 1, got 0"),
    (["--block", "0"], "--block must be at least 1, got 0"),
    (["--hogs", "0"], "--hogs must be an integer of at least 1, got 0"),
    (["--quota", "2"], "--quota must be above 0 and at most 1 (all of the CPU time), got 2.0"),
    (["--throttle-period-s", "0"], "--throttle-period-s must be above 0 and at most 3600, got 0.0"),
    (["--load", "nan"], "--load must be above 0, got nan"),
    (["--seeds", "-1"], "seeds must be integers of at least 0, got [-1]"),
    (["--seeds", ","], "seeds must be integers of at least 0, got []"),
    (["--threads", "0"], "threads must be an integer of at least 1, got 0"),
    (["--engine", "tvm"], "unknown engine 'tvm'"),
    (["--plot", "out.pdf"], "out.pdf does not end in .png; plots are PNG files, name it out.png"),
    (["--data-dir", "nowhere"], "the data folder nowhere does not exist"),
    (["--dataset", "digits"], "digits has images of 8×8×1, the bundle reads 28×28×1"),
    (["--profile", "nowhere.json"], "nowhere.json"),
    (
        ["--out", "/proc/x.jsonl"],
        "/proc/x.jsonl cannot be used: No such file or directory; choose another --out",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, message, bundle, tmp_path):
    assert message in run(bundle, *arguments, cwd=tmp_path, code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_holds_something_else_stays(bundle, tmp_path):
    (tmp_path / "precious.txt").write_text("precious\n")
    message = run(bundle, *TINY, "--out", "precious.txt", cwd=tmp_path, code=2)
    assert "precious.txt holds no measurements of 'paraedge bench'" in message
    assert (tmp_path / "precious.txt").read_text() == "precious\n"


def test_no_bundle(tmp_path):
    assert "nowhere.paraedge" in run("nowhere.paraedge", cwd=tmp_path, code=2)
