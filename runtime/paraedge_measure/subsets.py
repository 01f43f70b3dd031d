"""Which branches beside the first ones are worth their time: a greedy search on the logits of every branch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.evaluation import Evaluation
from paraedge_runtime.errors import InputError

__all__ = ["Positions", "worthwhile"]

Positions = tuple[int, ...]  # of branches in a bundle, ascending: 0 is its first

_MAX_GROWN = 16  # choices of one size that are grown further: the work stays cubic in the branches
_SAME_TIME = 1.05  # medians of equal branches differ by some percent; that must not make a choice look faster
_SURE = 1.645  # standard deviations: 95 %, one-sided


def worthwhile(evaluation: Evaluation, cost_ms: Callable[[Positions], float]) -> dict[Positions, float]:
    """Every prefix of the branches, and each other choice that beats the prefixes -> its accuracy.

    Forward selection on every other image: a choice is one of the best of its size with a branch added,
    where the best are those that no other one beats in time and accuracy. The images in between then
    judge: a choice stays when it gets more of them right than each prefix that takes as long (within 5 %)
    or less, by more than chance would explain (McNemar's test, one-sided, 95 %). The accuracy is that on
    the images that judge, of prefixes too.

    Args:
        evaluation: of the branches of one bundle, in order.
        cost_ms: time of a request with the branches at these positions.

    Raises:
        InputError: there are fewer than 2 images.
    """
    if len(evaluation.labels) < 2:
        raise InputError(f"choosing branches needs at least 2 labelled images, got {len(evaluation.labels)}")
    choosing, judging = (
        Evaluation(evaluation.branch_logits[:, first::2], evaluation.labels[first::2]) for first in (0, 1)
    )
    count = len(evaluation.branch_logits)
    prefixes = {positions: judging.correct(positions) for positions in (tuple(range(k + 1)) for k in range(count))}
    correct = dict(prefixes)
    for positions in _selected(choosing, cost_ms):
        rivals = [right for prefix, right in prefixes.items() if cost_ms(prefix) <= _SAME_TIME * cost_ms(positions)]
        right = judging.correct(positions)
        if all(_surely_better(right, rival) for rival in rivals):
            correct[positions] = right
    return {positions: round(float(right.mean()), 6) for positions, right in correct.items()}


def _selected(evaluation: Evaluation, cost_ms: Callable[[Positions], float]) -> list[Positions]:
    """What forward selection finds, of all sizes, fastest first."""
    count = len(evaluation.branch_logits)
    found: dict[Positions, tuple[float, float]] = {}
    best: list[Positions] = [()]
    for _ in range(count):
        grown = {tuple(sorted((*positions, new))) for positions in best for new in range(count) if new not in positions}
        points = {positions: (cost_ms(positions), float(evaluation.correct(positions).mean())) for positions in grown}
        best = _unbeaten(points)[-_MAX_GROWN:]
        found.update((positions, points[positions]) for positions in best)
    return _unbeaten(found)


def _unbeaten(points: Mapping[Positions, tuple[float, float]]) -> list[Positions]:
    """Those that no other one beats or equals in (time, accuracy): both rise from one to the next."""
    kept: list[Positions] = []
    for positions in sorted(points, key=lambda one: (points[one][0], -points[one][1], one)):
        if not kept or points[positions][1] > points[kept[-1]][1]:
            kept.append(positions)
    return kept


def _surely_better(right: NDArray[np.bool_], rival: NDArray[np.bool_]) -> bool:
    """Whether ``right`` (M,) is more often true than ``rival`` (M,), by more than chance."""
    won, lost = int((right & ~rival).sum()), int((rival & ~right).sum())
    return won - lost > _SURE * math.sqrt(won + lost)
