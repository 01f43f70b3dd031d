"""Policies against each other, cell by cell: paired differences with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from paraedge_measure.deadlines.cells import Cell
from paraedge_measure.deadlines.oracles import ORACLE_DYNAMIC, ORACLE_FIRST, ORACLE_STATIC
from paraedge_measure.deadlines.policies import ALERT, ALL, ANYTIME, DROP, EARLY_STOP
from paraedge_measure.deadlines.records import Record
from paraedge_measure.deadlines.statistics import PERCENTILES, bootstrap_interval, wilson_interval

__all__ = ["CellSummary", "Comparison", "Pooled", "accuracy", "best_static", "by_cell", "pool", "summarise"]


@dataclass(frozen=True)
class Comparison:
    """Accuracy (a miss is wrong) of one policy less that of another, on the same requests.

    Attributes:
        policy, against: what is compared.
        difference: of the accuracies, as fractions.
        interval: 95 %, block bootstrap; ``None`` with fewer than eight blocks.
        in_turns: whether they were measured in turns; if not, the machine may have changed in between.
    """

    policy: str
    against: str
    difference: float
    interval: tuple[float, float] | None
    in_turns: bool


@dataclass(frozen=True)
class CellSummary:
    """What can be said of a cell beyond its records.

    Attributes:
        cell: which.
        best_static: name of the fixed number of branches with the highest accuracy here, ``all`` included.
        comparisons: of paraedge's controller with each baseline and the dynamic oracle.
        fits: part of the requests that one branch alone serves in time, replayed; ``None`` without oracles.
        misses_where_it_fits: policy -> part of those requests that it missed.
        gap_closed: policy -> (accuracy − oracle-static) ÷ (oracle-dynamic − oracle-static); empty when the
            oracles are nearer to each other than 0.5 points.
        cpu_of_all: policy -> its CPU time ÷ that of ``all``.
    """

    cell: Cell
    best_static: str | None
    comparisons: tuple[Comparison, ...]
    fits: float | None
    misses_where_it_fits: dict[str, float]
    gap_closed: dict[str, float]
    cpu_of_all: dict[str, float]


def by_cell(records: Iterable[Record]) -> dict[Cell, dict[str, list[Record]]]:
    """Cell -> policy -> its records, one for each seed, ascending by seed."""
    found: dict[Cell, dict[str, list[Record]]] = {}
    for record in sorted(records, key=lambda record: record.seed):
        found.setdefault(record.cell, {}).setdefault(record.policy, []).append(record)
    return found


@dataclass(frozen=True)
class Pooled:
    """Records of one policy in one cell, all seeds together.

    Attributes:
        accuracy: part of all requests with a correct prediction in time.
        miss_rate, miss_interval: part of all requests that were missed, with Wilson's 95 % interval.
        branches, cpu_ms: means over the seeds.
        latency_ms, overshoot_ms: percentiles, each the mean over the seeds; empty without predictions.
    """

    accuracy: float
    miss_rate: float
    miss_interval: tuple[float, float]
    branches: float | None
    cpu_ms: float | None
    latency_ms: dict[str, float]
    overshoot_ms: dict[str, float]


def pool(records: Sequence[Record]) -> Pooled:
    """All seeds of one policy in one cell."""
    requests, misses = (sum(getattr(record, field) for record in records) for field in ("requests", "misses"))
    return Pooled(
        accuracy=accuracy(records),
        miss_rate=misses / requests,
        miss_interval=wilson_interval(misses, requests),
        branches=_mean(record.branches for record in records),
        cpu_ms=_mean(record.cpu_ms for record in records),
        latency_ms=_mean_percentiles([record.latency_ms for record in records]),
        overshoot_ms=_mean_percentiles([record.overshoot_ms for record in records]),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _mean_percentiles(seeds: Sequence[dict[str, float] | None]) -> dict[str, float]:
    known = [seed for seed in seeds if seed is not None]
    return {name: sum(seed[name] for seed in known) / len(known) for name in PERCENTILES} if known else {}


def accuracy(records: Sequence[Record]) -> float:
    """Part of the requests with a correct prediction in time."""
    return sum(record.correct for record in records) / sum(record.requests for record in records)


def best_static(policies: dict[str, list[Record]]) -> str | None:
    """The fixed number of branches with the highest accuracy, chosen afterwards; the smallest of equals."""
    names = [name for name in policies if name.startswith("static-") or name == ALL]
    return max(names, key=lambda name: accuracy(policies[name]), default=None)


def summarise(cell: Cell, policies: dict[str, list[Record]], block: int) -> CellSummary:
    """Compare what was measured in one cell; ``block`` is the header's."""
    static = best_static(policies)
    comparisons = [
        _compare(name, policies[name], against, policies[against], block)
        for name in (ANYTIME, EARLY_STOP, DROP)
        for against in dict.fromkeys((ALERT, static, ALL, ORACLE_DYNAMIC))
        if name in policies and against is not None and _seeds(policies, name) & _seeds(policies, against)
    ]
    fits, misses = None, {}
    if ORACLE_FIRST in policies:
        possible = {record.seed: ~record.missed for record in policies[ORACLE_FIRST]}
        total = sum(len(flags) for flags in possible.values())
        fits = sum(int(flags.sum()) for flags in possible.values()) / total
        for name, records in policies.items():
            known = [record for record in records if record.seed in possible]
            among = sum(int(possible[record.seed].sum()) for record in known)
            if among:
                missed = sum(int((record.missed & possible[record.seed]).sum()) for record in known)
                misses[name] = missed / among
    closed: dict[str, float] = {}
    if ORACLE_STATIC in policies and ORACLE_DYNAMIC in policies:
        floor, ceiling = accuracy(policies[ORACLE_STATIC]), accuracy(policies[ORACLE_DYNAMIC])
        if ceiling - floor >= 0.005:
            closed = {
                name: (accuracy(policies[name]) - floor) / (ceiling - floor)
                for name in (ALERT, ANYTIME, EARLY_STOP, DROP)
                if name in policies
            }
    cpu = {name: used for name, records in policies.items() if (used := pool(records).cpu_ms) is not None}
    return CellSummary(
        cell=cell,
        best_static=static,
        comparisons=tuple(comparisons),
        fits=fits,
        misses_where_it_fits=misses,
        gap_closed=closed,
        cpu_of_all={name: used / cpu[ALL] for name, used in cpu.items()} if cpu.get(ALL) else {},
    )


def _seeds(policies: dict[str, list[Record]], name: str) -> set[int]:
    return {record.seed for record in policies.get(name, [])}


def _compare(name: str, ours: list[Record], against: str, theirs: list[Record], block: int) -> Comparison:
    other = {record.seed: record for record in theirs}
    pairs = [(record, other[record.seed]) for record in ours if record.seed in other]
    differences = np.concatenate([one.right.astype(np.float64) - two.right for one, two in pairs])
    return Comparison(
        policy=name,
        against=against,
        difference=float(differences.mean()),
        interval=bootstrap_interval(differences, block),
        in_turns=all(one.run == two.run for one, two in pairs),
    )
