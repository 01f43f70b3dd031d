"""What the demo says of a request: when branches would have run, and when the session meant to return."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from paraedge_demo.messages import FrameRecord, branch_bars, return_ms
from paraedge_demo.terminal import _branch_table, _signs_text
from paraedge_runtime.prediction import BranchRun, BranchState, Prediction

NAN = math.nan
FIRST = BranchRun(0, BranchState.USED, 0, 0.2, 0.4, NAN, NAN, "")
# Decided on at 0.4 ms, with 0.9 ms left: the session means to return at 1.3 ms.
SECOND = BranchRun(1, BranchState.USED, 1, 0.4, 0.6, 0.5, 0.9, "")
THIRD = BranchRun(2, BranchState.WOULD_NOT_FIT, -1, 0.0, 0.0, 0.8, 0.7, "")
UNKNOWN = BranchRun(3, BranchState.WOULD_NOT_FIT, -1, 0.0, 0.0, NAN, 0.7, "")


def prediction(*runs):
    raw = SimpleNamespace(
        output=np.zeros(2, np.float32), branch_outputs=np.zeros((1, 2), np.float32), branches=runs, label_index=0,
        confidence=0.9, is_calibrated=True, stem_ms=0.2, elapsed_ms=0.6, deadline_met=True, requests_to_learn=0,
    )  # fmt: skip
    return Prediction(raw, ("cat", "dog"), "fake", ())


@pytest.mark.parametrize(
    ("runs", "expected_ms", "spans"),
    [
        ((FIRST, SECOND, THIRD), 1.3, [(0, 0), (0.4, 0.9), (0.6, 1.4)]),
        ((FIRST, THIRD), 1.1, [(0, 0), (0.4, 1.2)]),  # decided on when the first had ended, at 0.4 ms
        ((FIRST, UNKNOWN), 1.1, [(0, 0), (0, 0)]),
        ((FIRST,), 0.0, [(0, 0)]),  # nothing had to be decided
    ],
)
def test_when_branches_would_have_run_and_when_to_return(runs, expected_ms, spans):
    made = prediction(*runs)
    assert return_ms(made) == pytest.approx(expected_ms)
    bars = branch_bars(made, tuple(run.index for run in runs))
    assert [(bar.predicted_start_ms, bar.predicted_end_ms) for bar in bars] == [pytest.approx(span) for span in spans]


def frame(**changes):
    made = prediction(FIRST, SECOND, THIRD)
    fields = {
        "number": 1, "at_s": 1.0, "name": "a", "label": "cat", "confidence": 0.9, "truth": None, "latency_ms": 0.6,
        "inference_ms": 0.6, "stem_ms": 0.2, "overhead_ms": 0.0, "deadline_met": True,
        "branches": branch_bars(made, (0, 1, 2)), "budget_ms": 2.0, "threads": 2, "policy": "anytime", "count": 1,
        "load": False, "dropped_frames": 0, "requests_to_learn": 0, "return_ms": return_ms(made),
    }  # fmt: skip
    return FrameRecord(**{**fields, **changes})


def drawn(record, width):
    console = Console(width=80, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(_branch_table(record, width), _signs_text(record))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_terminal_draws_the_margin_and_what_was_predicted():
    # 23 columns are 2.3 ms: the deadline of 2 ms is in column 20, the margin begins in column 13.
    assert drawn(frame(), 23) == [
        "branch 0   ██         ░░░░░░░│   used",
        "branch 1     ██───    ░░░░░░░│   used",
        "branch 2       ────────░░░░░░│   dropped",
        "│ deadline  ░ 0.70 ms reserved for the return  ─ predicted time",
    ]


def test_without_a_decision_there_is_no_margin_to_draw():
    lines = drawn(frame(return_ms=0.0), 23)
    assert "░" not in "".join(lines)
    assert lines[-1] == "│ deadline"
