"""How near outputs are to a reference."""

import math
import sys

import numpy as np
import pytest

from paraedge_runtime.card import Similarity, Thresholds
from paraedge_runtime.similarity import (
    NO_SNR_DB,
    common_factor,
    compare,
    compare_prefix,
    prefix_shortfall,
    relative_error,
    snr_at_least,
    top1_agreement,
)


def _array(*values):
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("reference", "output", "snr_db", "cosine", "max_abs_error"),
    [
        pytest.param(_array(1, 2), _array(1, 2), None, 1.0, 0.0, id="equal"),
        pytest.param(_array(3, 4), _array(3, 4.5), 20.0, None, 0.5, id="noise a tenth"),
        pytest.param(_array(3, 4), _array(6, 8), 0.0, 1.0, 4.0, id="twice"),
        pytest.param(_array(3, 4), _array(-3, -4), -6.02, -1.0, 8.0, id="opposite"),
        pytest.param(_array(1, 0), _array(0, 1), -3.01, 0.0, 1.0, id="at right angles"),
        pytest.param(_array(3, 4), _array(0, 0), 0.0, 0.0, 4.0, id="nothing came"),
        pytest.param(_array(0, 0), _array(0, 0), None, 0.0, 0.0, id="nothing expected, nothing came"),
        pytest.param(_array(0, 0), _array(3, 4), NO_SNR_DB, 0.0, 4.0, id="nothing expected"),
        pytest.param(_array(1e38, 1e38), _array(1e38, -1e38), -3.01, 0.0, 2e38, id="large"),
        pytest.param(_array(1.4e-45), _array(2.8e-45), 0.0, 1.0, 1.4e-45, id="tiny"),
        pytest.param(_array(), _array(), None, 0.0, 0.0, id="empty"),
    ],
)
def test_compare(reference, output, snr_db, cosine, max_abs_error):
    found = compare(reference, output)
    assert found.snr_db == snr_db
    if cosine is not None:
        assert found.cosine == pytest.approx(cosine, abs=1e-9)
    assert found.max_abs_error == pytest.approx(max_abs_error, rel=0.02)


def test_compare_is_the_formula_whatever_the_shape():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(5, 3, 7)).astype(np.float32)
    output = reference + rng.normal(scale=1e-3, size=reference.shape).astype(np.float32)
    found = compare(reference, output)
    wanted, error = reference.astype(np.float64), reference.astype(np.float64) - output
    assert found.snr_db == pytest.approx(10 * math.log10((wanted**2).sum() / (error**2).sum()), abs=0.01)
    assert found.max_abs_error == np.abs(error).max()
    assert compare(reference.ravel(), output.ravel()) == found


def test_compare_works_in_float64():
    """The error of one value in a million is seen, where float32 sums would swallow it."""
    reference = np.full(1_000_000, 1000, np.float32)
    output = reference.copy()
    output[-1] += np.float32(0.001)
    assert compare(reference, output).snr_db == pytest.approx(180, abs=0.5)


def test_nan_is_never_near():
    found = compare(_array(1, 2), _array(1, np.nan))
    assert found.snr_db == NO_SNR_DB
    assert not snr_at_least(found, 0.0)
    assert (
        compare(_array(1, np.inf), _array(1, 2)).snr_db == compare(_array(1, 2), _array(1, np.inf)).snr_db == NO_SNR_DB
    )


@pytest.mark.parametrize(
    ("snr_db", "minimum", "enough"),
    [
        (None, 1e9, True),
        (100.0, 100.0, True),
        (99.99, 100.0, False),
        (-math.inf, -1e9, False),
        (math.inf, 100.0, True),
        (math.nan, 0.0, False),
    ],
)
def test_snr_at_least(snr_db, minimum, enough):
    assert snr_at_least(Similarity(snr_db=snr_db, cosine=1.0, max_abs_error=0.0), minimum) is enough


@pytest.mark.parametrize(
    ("reference", "output", "agreement"),
    [
        ([[1, 2], [3, 0]], [[5, 9], [1, 0]], 1.0),
        ([[1, 2], [3, 0]], [[5, 9], [0, 1]], 0.5),
        ([[1, 2], [3, 0], [0, 1], [0, 1]], [[9, 0], [0, 1], [1, 0], [0, 2]], 0.25),
        ([[1, 1]], [[2, 2]], 1.0),
    ],
)
def test_top1_agreement(reference, output, agreement):
    assert top1_agreement(np.float32(reference), np.float32(output)) == agreement


@pytest.mark.parametrize(
    ("reference", "output", "error"),
    [
        pytest.param([[3, 4], [0, 5]], [[3, 4], [0, 5]], 0.0, id="equal"),
        pytest.param([[3, 4], [0, 5]], [[3, 4], [0, 6]], 0.2, id="the worst row counts"),
        pytest.param([[3, 4], [0, 0]], [[3, 4], [0, 1]], 1 / math.sqrt(12.5), id="beside the usual norm"),
        pytest.param([[0, 0]], [[0, 0]], 0.0, id="nothing expected, nothing came"),
        pytest.param([[0, 0]], [[0, 1]], sys.float_info.max, id="nothing expected"),
        pytest.param([[1, 2]], [[1, np.nan]], sys.float_info.max, id="not a number"),
        pytest.param([[1e38, 1e38]], [[1e38, -1e38]], math.sqrt(2), id="large"),
    ],
)
def test_relative_error(reference, output, error):
    assert relative_error(np.float32(reference), np.float32(output)) == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize(
    ("reference", "output", "factor"),
    [
        pytest.param([[3, 4], [0, 5]], [[3, 4], [0, 5]], 1.0, id="equal"),
        pytest.param([[3, 4], [0, 5]], [[6, 8], [0, 10]], 2.0, id="doubled"),
        pytest.param([[3, 4], [0, 5]], [[-3, -4], [0, -5]], -1.0, id="turned around"),
        pytest.param([[3, 4]], [[3 + 4, 4 - 3]], 1.0, id="an error at a right angle"),
        pytest.param([[0, 0]], [[0, 1]], 1.0, id="nothing expected"),
    ],
)
def test_common_factor(reference, output, factor):
    assert common_factor(np.float32(reference), np.float32(output)) == pytest.approx(factor)


def test_a_prefix_is_compared_by_what_it_is():
    reference, output = np.float32([[3, 4], [5, 0]]), np.float32([[4, 3], [5, 0]])
    labels = compare_prefix(reference, output, has_labels=True)
    vector = compare_prefix(reference, output, has_labels=False)
    assert (labels.top1_agreement, labels.relative_error) == (0.5, None)
    assert (vector.top1_agreement, vector.relative_error) == (None, pytest.approx(math.sqrt(2) / 5))
    assert labels.snr_db == vector.snr_db == compare(reference, output).snr_db


@pytest.mark.parametrize(
    ("has_labels", "threshold", "problem"),
    [
        (True, 0.5, None),
        (True, 0.51, "gives the same label on 50.00 % of the inputs, below 51.00 %"),
        (False, 0.3, None),
        (False, 0.2, "has a relative error of 0.283, at most 0.2 is allowed"),
    ],
)
def test_prefix_shortfall(has_labels, threshold, problem):
    prefix = compare_prefix(np.float32([[3, 4], [5, 0]]), np.float32([[4, 3], [5, 0]]), has_labels=has_labels)
    thresholds = Thresholds(
        min_snr_db=0.0,
        min_top1_agreement=threshold if has_labels else None,
        max_relative_error=None if has_labels else threshold,
    )
    assert prefix_shortfall(prefix, thresholds) == problem
