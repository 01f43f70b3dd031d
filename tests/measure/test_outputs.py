"""What devices send of inputs that ran there: as text and back, and refused where it cannot be."""

import numpy as np
import pytest
from support.bundles import fake_bundle

from paraedge_measure.outputs import EncodedOutputs, branch_outputs, checked_outputs, chunks
from paraedge_runtime import DeviceError


@pytest.fixture
def bundle(tmp_path, fake_engine):
    return fake_bundle(tmp_path / "bundle.paraedge")


def test_outputs_are_the_same_bits_after_a_journey_as_text():
    outputs = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    assert np.array_equal(EncodedOutputs.of(outputs).decode(), outputs)


@pytest.mark.parametrize(
    "encoded",
    [EncodedOutputs((1, 1, 1), "é"), EncodedOutputs((1, 1, 2), "AAAA"), EncodedOutputs((9, 9, 9), "AAAAAA==")],
    ids=["no base64", "no float32", "another shape"],
)
def test_text_that_holds_no_outputs_is_refused(encoded):
    with pytest.raises(DeviceError, match="returned invalid outputs"):
        encoded.decode()


def test_every_branch_s_outputs_in_order_of_the_inputs(bundle):
    inputs = bundle.golden().inputs
    outputs = branch_outputs(bundle, inputs)
    assert outputs.shape == (len(inputs), len(bundle.manifest.branches), bundle.manifest.num_outputs)
    assert checked_outputs(outputs, bundle, len(inputs)) is outputs


def test_outputs_of_another_shape_or_not_finite_are_refused(bundle):
    shape = (4, len(bundle.manifest.branches), bundle.manifest.num_outputs)
    for outputs in (np.zeros((5, *shape[1:]), np.float32), np.full(shape, np.nan, np.float32), np.empty((0, 0, 0))):
        with pytest.raises(DeviceError, match="outputs of shape"):
            checked_outputs(outputs, bundle, 4)


def test_chunks_are_all_inputs_once(bundle):
    size = (1 << 20) // (len(bundle.manifest.branches) * bundle.manifest.num_outputs)
    found = list(chunks(bundle, 2 * size + 1))
    assert [len(chunk) for chunk in found] == [size, size, 1]
    assert found[1].start == size
