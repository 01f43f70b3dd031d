"""Calibrate early stop on held-out images: one temperature and one confidence threshold per prefix.

The guarantee, exactly. Let "lost" be an image to which all branches together give the right label
while some prefix that reaches its threshold gives a wrong one. With probability
``risk_confidence`` over the draw of the ``num_samples`` calibration images, at most
``max_accuracy_drop`` of all images of the same distribution are lost, and so the accuracy of
stopping is at most that far below the accuracy of all branches. It holds

* whichever prefixes are looked at: branches run in parallel, and a runtime that sees prefixes 2 and
  5 only can lose no other images than these;
* for the logits that were given (torch's, in float32), no other numbers;
* without any assumption about the network or the distribution, but for new images that come from
  that same distribution.

How. The temperatures are fitted on images of their own, so that on the calibration images every
threshold is a fixed rule, and the number of images it loses is binomial. Thresholds are tried from
the most careful down; each is a hypothesis "loses more than ``max_accuracy_drop``", refused where
the binomial tail of the count is at most ``1 - risk_confidence``; the first that cannot be refused
ends the search. Testing in a fixed order keeps the error of the whole search at that level.

Sources: A. Angelopoulos, S. Bates, E. Candès, M. Jordan, L. Lei, "Learn then Test: Calibrating
Predictive Algorithms to Achieve Risk Control", arXiv 2110.01052 (fixed-sequence testing); C. Guo,
G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017
(temperature).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime._arguments import as_array, as_number, as_whole, shown
from paraedge_runtime.card import EarlyStop, HeldOut
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import StopRule

__all__ = ["DEFAULT_MAX_ACCURACY_DROP", "Calibration", "calibrate_early_stop", "images_needed"]

DEFAULT_MAX_ACCURACY_DROP = 0.005
_RISK_CONFIDENCE = 0.95
# From careful to bold, in steps of a thousandth: the order is part of the method, the step is not.
_THRESHOLDS = tuple(step / 1000 for step in range(999, 0, -1))
# 1 / temperature. The search ends at the upper end where no fitting image is wrong; means of many branches, each
# trained to work alone, need temperatures that grow with their number.
_MIN_SHARPNESS, _MAX_SHARPNESS = 0.001, 20.0

Logits = NDArray[np.float64]


class Calibration(NamedTuple):
    """The manifest's ``stop_rules``, and the card's ``early_stop``: where they come from."""

    stop_rules: tuple[StopRule, ...]
    early_stop: EarlyStop


def calibrate_early_stop(
    branch_logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    dataset: str,
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP,
    seed: int = 0,
) -> Calibration:
    """Find early-stop thresholds that lose at most ``max_accuracy_drop`` of accuracy.

    The images are split at random: a tenth fits the temperatures, half choose the threshold, and the result is
    measured on the rest (``held_out``). Fewer than :func:`images_needed` all fit the temperatures.

    Args:
        branch_logits: (k, M, C), logits of a bundle's branches, in order, on M held-out images.
        labels: (M,) class indices.
        dataset: a name for the images, shown to users.
        max_accuracy_drop: a fraction above 0, at most 0.1; 0.005 is half a point.
        seed: seed of the random split.

    Returns:
        The stop rules and how they were measured. If no threshold is safe, all are ``None``: never stop.

    Raises:
        InputError: ``max_accuracy_drop`` is out of range, or the arrays do not fit each other.
    """
    branch_logits, labels = as_array("branch_logits", branch_logits), as_array("labels", labels)
    seed = as_whole("seed", seed, least=0)
    max_accuracy_drop = as_number("max_accuracy_drop", max_accuracy_drop, finite=False)
    if not isinstance(dataset, str):
        raise InputError(f"dataset must be a string, got {shown(dataset)}")
    if not 0 < max_accuracy_drop <= 0.1:
        raise InputError(
            f"max_accuracy_drop must be above 0 and at most 0.1 (0.005 is half a point), got {max_accuracy_drop}"
        )
    if branch_logits.ndim != 3 or labels.shape != branch_logits.shape[1:2] or not branch_logits.size:
        raise InputError(
            "branch_logits and labels must be non-empty, of shape (branches, images, classes) and (images,), "
            f"got {branch_logits.shape} and {labels.shape}"
        )
    prefix_logits = branch_logits.astype(np.float64).cumsum(axis=0)  # (k, M, C)
    count, num_images, _ = prefix_logits.shape
    order = np.random.default_rng(seed).permutation(num_images)
    fitting, calibration, rest = np.split(order, [num_images // 10, num_images // 10 + num_images // 2])

    doubt = 0.0
    if num_images < images_needed(max_accuracy_drop):  # no threshold can be found: a tenth of them would be too few
        fitting, doubt = order, 1 / (num_images + 2)
    temperatures = [_fit_temperature(logits[fitting], labels[fitting], doubt) for logits in prefix_logits]
    confidence = np.stack([_confidence(logits, t) for logits, t in zip(prefix_logits, temperatures, strict=True)])
    correct = prefix_logits.argmax(axis=2) == labels  # (k, M)
    threshold = _search(confidence[:-1, calibration], correct[:, calibration], max_accuracy_drop)

    stopped_at = np.full(len(rest), count - 1)
    if threshold is not None and count > 1:
        reached = np.vstack([confidence[:-1, rest] >= threshold, np.ones((1, len(rest)), bool)])
        stopped_at = reached.argmax(axis=0)
    rules = tuple(
        StopRule(temperature=round(t, 6), threshold=threshold if position < count - 1 else None)
        for position, t in enumerate(temperatures)
    )
    early_stop = EarlyStop(
        dataset=dataset,
        num_samples=len(calibration),
        max_accuracy_drop=max_accuracy_drop,
        risk_confidence=_RISK_CONFIDENCE,
        held_out=HeldOut(
            num_samples=len(rest),
            accuracy_full=round(float(correct[-1, rest].mean()), 6),
            accuracy_stopped=round(float(correct[stopped_at, rest].mean()), 6),
            mean_branches=round(float(stopped_at.mean()) + 1, 4),
        ),
    )
    return Calibration(rules, early_stop)


def images_needed(max_accuracy_drop: float) -> int:
    """Fewest images with which :func:`calibrate_early_stop` can promise anything: none of them lost."""
    return 2 * math.ceil(math.log(1 - _RISK_CONFIDENCE) / math.log1p(-max_accuracy_drop))


def _search(confidence: Logits, correct: NDArray[np.bool_], max_accuracy_drop: float) -> float | None:
    """The boldest threshold that passes: ``confidence`` (k - 1, n), ``correct`` (k, n)."""
    _, num_images = correct.shape
    # An image is lost at every threshold up to the largest confidence among its wrong prefixes.
    wrong = np.where(correct[:-1], 0.0, confidence).max(axis=0, initial=0.0)
    lost_up_to = np.where(correct[-1], wrong, 0.0)
    found = None
    for threshold in _THRESHOLDS:
        if _binomial_tail(int((lost_up_to >= threshold).sum()), num_images, max_accuracy_drop) > 1 - _RISK_CONFIDENCE:
            break
        found = threshold
    return found


def _binomial_tail(count: int, num_images: int, rate: float) -> float:
    """P(X <= count) for X ~ Binomial(num_images, rate): the exact p-value of "the rate is higher"."""
    logs = [
        math.lgamma(num_images + 1)
        - math.lgamma(seen + 1)
        - math.lgamma(num_images - seen + 1)
        + seen * math.log(rate)
        + (num_images - seen) * math.log1p(-rate)
        for seen in range(count + 1)
    ]
    return math.fsum(map(math.exp, logs))


def _fit_temperature(logits: Logits, labels: NDArray[np.integer], doubt: float) -> float:
    """The temperature of least negative log-likelihood: ``logits`` (n, C). 1 where there is no image.

    ``doubt`` is the probability of the other classes together in each target: without it a few images, all of them
    right, would make every confidence 100 %. 1 / (n + 2) is Platt's.
    """
    if not len(logits):
        return 1.0
    own = logits[np.arange(len(labels)), labels]
    others = (logits.sum(axis=1) - own) / max(1, logits.shape[1] - 1)
    gap = logits - ((1 - doubt) * own + doubt * others)[:, None]  # (n, C)
    low, high = _MIN_SHARPNESS, _MAX_SHARPNESS
    for _ in range(60):  # the likelihood is convex in 1 / temperature: halve where its slope changes sign
        middle = math.sqrt(low * high)
        weights = np.exp(middle * (gap - gap.max(axis=1, keepdims=True)))
        slope = ((weights * gap).sum(axis=1) / weights.sum(axis=1)).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 1 / high


def _confidence(logits: Logits, temperature: float) -> Logits:
    """Largest softmax probability: (n, C) -> (n,)."""
    relative = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    largest: Logits = 1 / relative.sum(axis=1)
    return largest
