"""Tests of paraedge.training.evaluate: the logits kept of a test set are those of the model."""

import numpy as np
import pytest
import torch

from paraedge.training import evaluate_model
from paraedge.training.batches import normalise


@pytest.mark.parametrize("batch_size", [1, 7, 60, 256])
def test_logits_are_those_of_the_model_whatever_the_batch_size(trained, few_digits, batch_size):
    model = trained.checkpoint.model
    evaluation = evaluate_model(model, few_digits.test, batch_size=batch_size)
    with torch.no_grad():
        expected = model.branch_logits(normalise(torch.from_numpy(few_digits.test.images), model.config)).numpy()
    assert evaluation.branch_logits.dtype == np.float32
    assert evaluation.branch_logits.shape == (2, 60, 10)
    np.testing.assert_allclose(evaluation.branch_logits, expected, atol=1e-5)
    assert np.array_equal(evaluation.labels, few_digits.test.labels)


@pytest.mark.parametrize(
    ("batch_size", "counts"), [(25, [25, 25, 10]), (60, [60]), (256, [60])], ids=["ragged", "exact", "larger"]
)
def test_on_batch_hears_of_every_image_once(trained, few_digits, batch_size, counts):
    heard = []
    evaluate_model(trained.checkpoint.model, few_digits.test, batch_size=batch_size, on_batch=heard.append)
    assert heard == counts


def test_model_in_training_mode_is_evaluated_with_its_running_statistics(trained, few_digits):
    model = trained.checkpoint.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = evaluate_model(model, few_digits.test).branch_logits
    model.train()
    assert np.array_equal(evaluate_model(model, few_digits.test).branch_logits, expected)
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
