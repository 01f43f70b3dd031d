"""What a prediction says about itself."""

import dataclasses

import numpy as np
import pytest

from paraedge_runtime import DroppedBranch, PartRun, Prediction


def _prediction(branch_outputs):
    outputs = np.asarray(branch_outputs, dtype=np.float32)
    total = outputs.cumsum(axis=0, dtype=np.float32)[-1]
    return Prediction(
        output=total,
        label_index=0,
        label="ant",
        confidence=0.5,
        branches_used=tuple(range(len(outputs))),
        branches_dropped=(DroppedBranch(9, "late"),),
        branch_outputs=outputs,
        elapsed_ms=1.0,
        timeline=(PartRun("stem", 0, 0.0, 1.0),),
        engine="fake 1.0",
    )


def test_prefix_outputs_are_the_running_sums():
    prefixes = _prediction([[1, 2], [10, 20], [100, -200]]).prefix_outputs
    assert prefixes.dtype == np.float32
    assert prefixes.tolist() == [[1, 2], [11, 22], [111, -178]]


def test_the_last_prefix_is_the_output_bit_for_bit():
    prediction = _prediction(np.random.default_rng(0).normal(scale=1e4, size=(50, 7)))
    assert np.array_equal(prediction.prefix_outputs[-1], prediction.output)


def test_one_branch_has_one_prefix():
    assert _prediction([[0.5, 0.25]]).prefix_outputs.tolist() == [[0.5, 0.25]]


@pytest.mark.parametrize("record", [_prediction([[1, 2]]), DroppedBranch(1, "x"), PartRun("stem", 0, 0.0, 1.0)])
def test_records_cannot_be_changed(record):
    field = record._fields[0] if isinstance(record, PartRun) else dataclasses.fields(record)[0].name
    with pytest.raises(AttributeError):  # of which FrozenInstanceError is one
        setattr(record, field, None)
