"""Two oracles, and the least that anybody misses, replayed from recorded durations.

What is recorded. In every round of a cell one block belongs to no policy: the full model runs without a
deadline on the round's arrivals, under the round's interference, and leaves out requests that come while it
is busy. Of each run the trace keeps when it began, how long the stem took, how long each branch took (the
hand-off before it included), and what passed from the last branch to the caller's hands.

What is replayed. The same arrivals, served one at a time. A request that begins t seconds into its block
takes the durations of the recorded run that began nearest to t. Branches are taken in order by the first free
thread, the first branch by the caller's; the deadline cuts exactly, and a decision costs nothing.

- ``oracle-static``: the fixed number of branches with the highest accuracy in the cell, chosen afterwards.
  Work that is late at the deadline occupies its thread in the next request, as it does in the engine.
- ``oracle-dynamic``: knows all durations and arrivals, not the labels. For every request it chooses how many
  branches to wait for, or to skip it, such that the expected number of right predictions in the
  whole block is the highest (by dynamic programming over the time at which it is free again). What it does
  not wait for it cancels for free.
- ``oracle-first``: one branch for every request. What it misses, the first branch alone does not fit.

Limits. Contention is that of the full model with all threads busy: who drops branches would run a little
faster than recorded. Two runs that meet different noise (an interrupt here, none there) do so independently:
single requests are not comparable with those of a live policy, only their sums. In a closed loop there is
nothing to wait for, so the dynamic oracle takes all that fits. Accuracy after k branches is that of the first
k, whichever ended.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime import PartRun

__all__ = ["ORACLE_DYNAMIC", "ORACLE_FIRST", "ORACLE_STATIC", "Durations", "Trace", "replay_dynamic", "replay_static"]

ORACLE_STATIC, ORACLE_DYNAMIC, ORACLE_FIRST = "oracle-static", "oracle-dynamic", "oracle-first"

# The dynamic programme tells so many states within a deadline apart; a burst has no more.
RESOLUTION = 1000


@dataclass(frozen=True)
class Durations:
    """Seconds that the parts of one request took: the stem, each branch, and from the last one to the caller."""

    stem_s: float
    branch_s: tuple[float, ...]
    return_s: float

    @classmethod
    def of(cls, timeline: Sequence[PartRun], wall_s: float) -> Durations:
        """From the timeline of a run of every branch that took the caller ``wall_s``."""
        stem, *branches = timeline
        ends_ms = sorted(run.end_ms for run in timeline)
        taken_s = {
            # Since the last thing that ended before: a thread that waited, waited for that.
            run.part: (run.end_ms - ends_ms[bisect.bisect(ends_ms, run.start_ms) - 1]) / 1e3
            for run in branches
        }
        return cls(
            stem.end_ms / 1e3, tuple(taken_s[part] for part in sorted(taken_s)), max(0.0, wall_s - ends_ms[-1] / 1e3)
        )

    def completions(self, threads: int) -> list[float]:
        """(K,) seconds from the start until 1, 2, … branches are in, every branch taken in order."""
        free = [self.stem_s] * threads
        ends = []
        for taken_s in self.branch_s:
            first = min(range(threads), key=free.__getitem__)
            free[first] += taken_s
            ends.append(free[first])
        return sorted(ends)


class Trace:
    """Durations of the runs of one block, by when they began."""

    def __init__(self, starts_s: Sequence[float], durations: Sequence[Durations]) -> None:
        self._starts_s = list(starts_s)
        self._durations = list(durations)

    def at(self, time_s: float) -> Durations:
        """The run that began nearest to ``time_s`` after the start of the block."""
        after = bisect.bisect(self._starts_s, time_s)
        if after == len(self._starts_s):
            return self._durations[-1]
        if after == 0 or self._starts_s[after] - time_s < time_s - self._starts_s[after - 1]:
            return self._durations[after]
        return self._durations[after - 1]


def replay_static(
    count: int,
    trace: Trace,
    arrivals_s: Sequence[float],
    deadline_s: float,
    threads: int,
    *,
    closed: bool = False,
) -> NDArray[np.int64]:
    """(n,) branches in each prediction of ``count`` branches with a hard return; 0 for a miss.

    Args:
        count: branches that every request starts.
        trace: of the block.
        arrivals_s: (n,) ascending, from the start of the block.
        deadline_s: from arrival to deadline.
        threads: that run branches.
        closed: requests arrive when the one before has returned; ``arrivals_s`` says how many.
    """
    branches = np.zeros(len(arrivals_s), dtype=np.int64)
    free_s = 0.0  # when the caller is back
    late_s = [0.0] * threads  # until when each thread is inside a branch of an earlier request
    for position, scheduled_s in enumerate(arrivals_s):
        arrival_s = free_s if closed else scheduled_s
        start_s, until_s = max(arrival_s, free_s), arrival_s + deadline_s
        if start_s >= until_s:
            continue
        durations = trace.at(start_s)
        tokens_s = start_s + durations.stem_s
        first_s = tokens_s + durations.branch_s[0]
        # The caller's thread takes the first branch, and a worker takes over from it.
        busy_s = [max(first_s, late_s[0]), *(max(tokens_s, late) for late in late_s[1:])]
        ends_s = [first_s]
        for taken_s in durations.branch_s[1:count]:
            thread = min(range(threads), key=busy_s.__getitem__)
            if busy_s[thread] >= until_s:
                break
            busy_s[thread] += taken_s
            ends_s.append(busy_s[thread])
        in_time = sum(end + durations.return_s <= until_s for end in ends_s)
        if first_s + durations.return_s > until_s:
            free_s = first_s + durations.return_s
        else:
            branches[position] = in_time
            complete = in_time == count
            free_s = max(ends_s) + durations.return_s if complete else until_s
        late_s = [max(end, free_s) for end in busy_s]
    return branches


def replay_dynamic(
    accuracy: Sequence[float],
    trace: Trace,
    arrivals_s: Sequence[float],
    deadline_s: float,
    threads: int,
    *,
    closed: bool = False,
) -> NDArray[np.int64]:
    """(n,) branches in each prediction of the best possible choices; 0 for a miss. See ``replay_static``.

    Args:
        accuracy: (K,) of the prediction of 1, 2, … branches: what the choices maximise the sum of.
        trace, arrivals_s, deadline_s, threads, closed: as for ``replay_static``.
    """
    if closed:
        return _greedy(accuracy, trace, len(arrivals_s), deadline_s, threads)
    # Free time -> (value so far, choices so far as a linked list). Only states that no other beats in
    # both are kept: an idle machine has one, and a burst has as many as RESOLUTION tells apart.
    states: list[tuple[float, float, _Choices]] = [(0.0, 0.0, None)]
    completions: dict[Durations, list[float]] = {}  # most states meet the same few runs
    for arrival_s in arrivals_s:
        following: list[tuple[float, float, _Choices]] = []
        for free_s, value, choices in states:
            start_s, until_s = max(arrival_s, free_s), arrival_s + deadline_s
            following.append((start_s, value, (0, choices)))
            if start_s >= until_s:
                continue
            durations = trace.at(start_s)
            if durations not in completions:
                completions[durations] = durations.completions(threads)
            for count, end in enumerate(completions[durations], start=1):
                end_s = start_s + end + durations.return_s
                if end_s > until_s:
                    break
                following.append((end_s, value + accuracy[count - 1], (count, choices)))
        states = _undominated(following, deadline_s / RESOLUTION)
    _, _, choices = max(states, key=lambda state: state[1])
    counts = []
    while choices is not None:
        count, choices = choices
        counts.append(count)
    return np.array(counts[::-1], dtype=np.int64)


_Choices = tuple[int, "_Choices"] | None


def _undominated(
    states: list[tuple[float, float, _Choices]], resolution_s: float
) -> list[tuple[float, float, _Choices]]:
    """Of states (free time, value): ascending in both; of those as good as free together, the best."""
    kept: list[tuple[float, float, _Choices]] = []
    for state in sorted(states, key=lambda state: (state[0], -state[1])):
        if kept and state[1] <= kept[-1][1]:
            continue
        if len(kept) > 1 and state[0] - kept[-2][0] < resolution_s:
            kept.pop()
        kept.append(state)
    return kept


def _greedy(
    accuracy: Sequence[float], trace: Trace, requests: int, deadline_s: float, threads: int
) -> NDArray[np.int64]:
    counts = np.zeros(requests, dtype=np.int64)
    now_s = 0.0
    for position in range(requests):
        durations = trace.at(now_s)
        ends_s = [end + durations.return_s for end in durations.completions(threads)]
        fitting = [count for count, end in enumerate(ends_s, start=1) if end <= deadline_s]
        if fitting:
            counts[position] = max(fitting, key=lambda count: accuracy[count - 1])
        now_s += ends_s[max(counts[position], 1) - 1]
    return counts
