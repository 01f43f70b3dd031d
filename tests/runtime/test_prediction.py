"""What a prediction says about itself."""

import copy
import dataclasses
import json
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from support.bundles import EMBEDDING, LABELS, fake_bundle, image

from paraedge_runtime import DroppedBranch, InputError, PartRun, Prediction, Session
from paraedge_runtime.prediction import BranchRun, BranchState

NEVER = math.nan

RUNS = [
    (0, BranchState.USED, 0, 1.0, 2.0, NEVER, NEVER, ""),
    (2, BranchState.USED, 1, 1.25, 1.75, 0.5, 3.0, ""),
    (3, BranchState.FAILED, 1, 2.0, 2.5, NEVER, NEVER, "no memory"),
    (4, BranchState.NOT_FINITE, 1, 0.5, 2.5, NEVER, NEVER, ""),
    (5, BranchState.WOULD_NOT_FIT, -1, 0.0, 0.0, 0.75, 0.5, ""),
    (6, BranchState.WOULD_NOT_FIT, -1, 0.0, 0.0, NEVER, 0.5, ""),
    (7, BranchState.LATE, 1, 2.5, 0.0, 0.4, 0.5, ""),
    (8, BranchState.LATE, -1, 0.0, 0.0, NEVER, NEVER, ""),
    (9, BranchState.NOT_NEEDED, -1, 0.0, 0.0, NEVER, NEVER, ""),
]

REASONS = {
    3: "no memory",
    4: "its output is not finite",
    5: "predicted to miss the deadline: 0.75 ms predicted, 0.50 ms left",
    6: "its time on this device is not known yet",
    7: "it had not finished at the deadline",
    8: "no thread was free before the deadline",
    9: "the prediction was confident enough without it",
}


def _prediction(
    branch_outputs=((1.0, 2.0), (3.0, 4.0)),
    requests_to_learn=0,
    labels=("ant", "bee"),
    is_calibrated=True,
    temperatures=(1.0, 1.0),
):
    outputs = np.asarray(branch_outputs, dtype=np.float32)
    raw = SimpleNamespace(
        output=outputs.cumsum(axis=0, dtype=np.float32)[-1],
        branch_outputs=outputs,
        branches=[BranchRun(*run) for run in RUNS],
        label_index=1,
        confidence=0.5,
        is_calibrated=is_calibrated,
        stem_ms=0.5,
        elapsed_ms=3.0,
        deadline_met=True,
        requests_to_learn=requests_to_learn,
    )
    return Prediction(raw, labels, "fake 1.0", temperatures)


def test_every_fact_of_the_prediction():
    prediction = _prediction()
    assert prediction.output.tolist() == [4, 6]
    assert (prediction.label_index, prediction.label, prediction.confidence) == (1, "bee", 0.5)
    assert (prediction.elapsed_ms, prediction.deadline_met, prediction.engine) == (3.0, True, "fake 1.0")
    assert prediction.is_calibrated
    assert prediction.branches_used == (0, 2)
    assert prediction.branches_dropped == tuple(DroppedBranch(*item) for item in REASONS.items())
    assert repr(prediction) == "Prediction(label='bee', confidence=0.500, branches_used=(0, 2), elapsed_ms=3.000)"


def test_a_vector_has_no_label():
    prediction = _prediction(labels=())
    assert prediction.output.tolist() == [4, 6]
    assert repr(prediction) == "Prediction(output=2 numbers, branches_used=(0, 2), elapsed_ms=3.000)"
    for name in ("label", "label_index", "confidence", "probabilities"):
        with pytest.raises(InputError, match="this bundle's output is a vector of 2 numbers; read 'output'"):
            getattr(prediction, name)


def test_probabilities_are_the_softmax_and_calibrated_where_a_temperature_is_known():
    plain, calibrated = _prediction(is_calibrated=False), _prediction(temperatures=(9.0, 2.0))
    for prediction, temperature in ((plain, 1.0), (calibrated, 2.0)):
        odds = math.exp(2 / temperature)  # logits 4 and 6
        assert prediction.probabilities.tolist() == pytest.approx([1 / (1 + odds), odds / (1 + odds)])
        with pytest.raises(ValueError, match="read-only"):
            prediction.probabilities[0] = 1


def test_top_k_has_the_most_probable_labels_first():
    prediction = _prediction([[1, 5, 3, 5]], labels=("ant", "bee", "cat", "dog"), is_calibrated=False)
    assert [label for label, _ in prediction.top_k(4)] == ["bee", "dog", "cat", "ant"]  # a tie in label order
    assert sum(probability for _, probability in prediction.top_k(np.int64(4))) == pytest.approx(1)
    assert prediction.top_k(1) == (("bee", prediction.probabilities[1]),)
    for k in (0, 5, -1, 1.0, True, "2", None):
        with pytest.raises(InputError, match=r"k must be an integer from 1 to 4 \(the number of labels\), got "):
            prediction.top_k(k)
    with pytest.raises(InputError, match="a vector of 2 numbers"):
        _prediction(labels=()).top_k(1)


@pytest.mark.parametrize("labels", [("ant", "bee"), ()], ids=["labels", "vector"])
def test_to_dict_is_what_json_can_hold(labels):
    prediction = _prediction(labels=labels)
    document = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert document == prediction.to_dict()
    assert document["label"] == ("bee" if labels else None)
    assert document["confidence"] == (0.5 if labels else None)
    assert document["output"] == [4.0, 6.0]
    assert document["branches_used"] == [0, 2]
    assert document["branches_dropped"][0] == {"index": 3, "reason": "no memory"}
    assert document["timeline"][0] == {"part": "stem", "thread": 0, "start_ms": 0.0, "end_ms": 0.5}


def test_the_timeline_has_what_finished_by_start():
    parts = [run.part for run in _prediction().timeline]
    assert parts == ["stem", "branch_04", "branch_00", "branch_02", "branch_03"]
    assert _prediction().timeline[0] == PartRun("stem", 0, 0.0, 0.5)


def test_explain_has_a_line_for_each_branch():
    lines = _prediction().explain().splitlines()
    assert len(lines) == len(RUNS)
    assert lines[0] == "branch 0 ran from 1.00 to 2.00 ms on thread 0: the first branch always runs"
    assert lines[1] == "branch 2 ran from 1.25 to 1.75 ms on thread 1: 0.50 ms predicted, 3.00 ms left"
    assert lines[2:] == [f"branch {index} was dropped: {reason}" for index, reason in REASONS.items()]


def test_explain_says_that_the_device_is_still_being_learned():
    assert _prediction(requests_to_learn=7).explain().startswith("this device's speed is still being learned, for 7 ")


def test_prefix_outputs_are_the_running_sums():
    prefixes = _prediction([[1, 2], [10, 20], [100, -200]]).prefix_outputs
    assert prefixes.dtype == np.float32
    assert prefixes.tolist() == [[1, 2], [11, 22], [111, -178]]


def test_the_last_prefix_is_the_output_bit_for_bit():
    prediction = _prediction(np.random.default_rng(0).normal(scale=1e4, size=(50, 7)))
    assert np.array_equal(prediction.prefix_outputs[-1], prediction.output)


@pytest.mark.parametrize(
    "record", [_prediction(), DroppedBranch(1, "x"), PartRun("stem", 0, 0.0, 1.0), BranchRun(*RUNS[0])]
)
def test_records_cannot_be_changed(record):
    field = "part" if isinstance(record, PartRun) else "output"
    if dataclasses.is_dataclass(record):
        field = dataclasses.fields(record)[0].name
    with pytest.raises(AttributeError):  # of which FrozenInstanceError is one
        setattr(record, field, None)


@pytest.mark.parametrize("again", [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("output", [LABELS, EMBEDDING], ids=["labels", "vector"])
@pytest.mark.usefixtures("fake_engine")
def test_a_prediction_travels_to_another_process(tmp_path, output, again):
    """A pool of processes pickles what its workers return; the session stays where it is."""
    with Session.open(fake_bundle(tmp_path / "b", output=output)) as session:
        prediction = session.run(image(), budget_ms=5000)
    other = again(prediction)
    assert other.to_dict() == prediction.to_dict()
    assert other.explain() == prediction.explain()
    assert repr(other) == repr(prediction)
    np.testing.assert_array_equal(other.branch_outputs, prediction.branch_outputs)
    if output is LABELS:
        np.testing.assert_array_equal(other.probabilities, prediction.probabilities)
