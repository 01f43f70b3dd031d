"""What bursts cost, simulated: fixed numbers of branches, the controller with time left for what may come, with drops.

    .venv/bin/python benchmarks/bursts.py

Requests arrive as in ``paraedge bench``; a session of two threads serves them one at a time. Stem and branches take the
medians of cifar10 on ExecuTorch here with lognormal noise, now and then a thread stalls, and the square wave makes
everything 1.7 times slower half of the time. ``anytime`` starts what will probably end before it has to leave, and
leaves earlier for requests that wait already; ``arrivals`` does so, too, for those that may come, by the rule of
``runtime/native/core/arrivals.cpp``. In all of these a request whose deadline has passed before its turn is left out.
``run`` is ``arrivals`` where it runs all the same, as in a session; ``drop`` is ``on_overload="drop"``, which also
refuses a request that will, as likely as not, have no prediction in time. Accuracy counts a miss as wrong.
"""

from __future__ import annotations

import argparse

import numpy as np

from paraedge_measure.deadlines.arrivals import ARRIVALS

ACCURACY = (0.9425, 0.949, 0.9525, 0.9565)
STEM_MS, BRANCH_MS, RETURN_MS, FULL_MS = 0.16, (0.13, 0.13, 0.27, 0.85), 0.01, 1.15
NOISE, STALLS, STALL_MS = 0.08, 0.004, 1.0
SQUARE_PERIOD_MS, SQUARE_FACTOR = 200.0, 1.7
TAIL = 1.15  # what the controller allows for above its estimate
GAPS, LEAST, AHEAD = 64, 8, 2  # as in arrivals.h
HOPE = 0.02  # as in controller.cpp
POLICIES = ("static-1", "static-2", "static-3", "all", "anytime", "arrivals", "run", "drop")
ADAPTIVE = ("anytime", "arrivals", "run", "drop")


def time_to_leave(came_ms: np.ndarray, deadline_ms: float, mandatory_ms: float) -> float:
    """The rule: the next two requests come as soon as any two did lately, and need a first prediction each."""
    late = came_ms[-GAPS - 1 :]
    if len(late) <= LEAST:
        return deadline_ms
    shortest = [(count, float((late[count:] - late[:-count]).min())) for count in range(1, AHEAD + 1)]
    return min(deadline_ms, *(deadline_ms + gap_ms - count * mandatory_ms for count, gap_ms in shortest))


class Device:
    """Two threads, of which one is the caller's, and what the controller believes of them."""

    def __init__(self, policy: str, square: bool, seed: int) -> None:
        self.policy, self.square = policy, square
        self.rng = np.random.default_rng(seed)
        self.free_ms, self.late_ms, self.slowdown, self.hope = 0.0, [0.0, 0.0], 1.0, 0.0

    def durations(self, now_ms: float) -> tuple[float, list[float]]:
        """The stem's and the branches', ms."""
        slow = SQUARE_FACTOR if self.square and now_ms % SQUARE_PERIOD_MS < SQUARE_PERIOD_MS / 2 else 1.0
        factors = slow * np.exp(self.rng.normal(0, NOISE, 5))
        stalls = (self.rng.random(5) < STALLS) * self.rng.exponential(STALL_MS, 5)
        stem, *branches = (np.array([STEM_MS, *BRANCH_MS]) * factors + stalls).tolist()
        if not stalls[0]:
            self.slowdown += 0.3 * (stem / STEM_MS - self.slowdown)
        return stem, branches

    def leave(self, came_ms: np.ndarray, waiting_ms: np.ndarray, start_ms: float, budget_ms: float) -> float:
        """When the session has to return; ``waiting_ms``: arrivals of the requests that wait behind this one."""
        deadline_ms = float(came_ms[-1]) + budget_ms
        mandatory_ms = (STEM_MS + BRANCH_MS[0]) * self.slowdown * TAIL
        until_ms = deadline_ms
        if self.policy != "anytime":
            until_ms = time_to_leave(came_ms, deadline_ms, mandatory_ms)
        for place, other_ms in enumerate(waiting_ms, start=1):
            until_ms = min(until_ms, other_ms + budget_ms - place * mandatory_ms)
        return max(until_ms, start_ms)

    def drops(self, needed_ms: float, left_ms: float) -> bool:
        """Whether a request is refused that needs so long for its first prediction as things were when none stalled."""
        if self.policy != "drop" or needed_ms * self.slowdown * float(np.exp(-self.hope)) <= left_ms:
            return False
        self.hope += HOPE
        return True

    def serve(self, number: int, arrivals_ms: np.ndarray, budget_ms: float) -> int:
        """Branches in the prediction of that request; 0: missed."""
        start_ms = max(float(arrivals_ms[number]), self.free_ms)
        deadline_ms = float(arrivals_ms[number]) + budget_ms
        if start_ms >= deadline_ms and self.policy != "run":
            return 0
        if self.drops(STEM_MS + BRANCH_MS[0], deadline_ms - start_ms):
            return 0
        adaptive = self.policy in ADAPTIVE
        count = {"static-1": 1, "static-2": 2, "static-3": 3}.get(self.policy, 4)
        until_ms = deadline_ms
        if adaptive:
            waiting_ms = arrivals_ms[number + 1 : np.searchsorted(arrivals_ms, start_ms, side="right")]
            until_ms = self.leave(arrivals_ms[: number + 1], waiting_ms, start_ms, budget_ms)
        stem_ms, branch_ms = self.durations(start_ms)
        tokens_ms = start_ms + stem_ms
        if self.drops(BRANCH_MS[0], deadline_ms - tokens_ms):
            self.free_ms = tokens_ms
            return 0
        self.hope = 0.0
        first_ms = tokens_ms + branch_ms[0]
        busy_ms, ends_ms = [max(first_ms, self.late_ms[0]), max(tokens_ms, self.late_ms[1])], [first_ms]
        left = list(range(1, count))
        while left:
            thread = min((0, 1), key=busy_ms.__getitem__)
            fits = [b for b in left if busy_ms[thread] + BRANCH_MS[b] * self.slowdown * TAIL <= until_ms]
            chosen = next(iter(fits if adaptive else left), None)
            if busy_ms[thread] >= until_ms or chosen is None:
                break
            left.remove(chosen)
            busy_ms[thread] += branch_ms[chosen]
            ends_ms.append(busy_ms[thread])
        limit_ms = max(until_ms, first_ms) if adaptive else until_ms
        in_time = sum(end <= limit_ms for end in ends_ms)
        self.free_ms = (max(ends_ms) if in_time == len(ends_ms) else max(limit_ms, first_ms)) + RETURN_MS
        self.late_ms = [max(end, self.free_ms) for end in busy_ms]
        return in_time if self.free_ms <= deadline_ms + 2 * RETURN_MS else 0


def main() -> None:
    """Print accuracy and misses, %, of every policy in every cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print("cell", *POLICIES, sep="\t")
    for pattern in ("bursty", "poisson", "periodic"):
        for square in (False, True):
            for deadline in (0.7, 1.0, 1.5):
                row = [f"{pattern}, {'square' if square else 'none'}, {deadline}"]
                for policy in POLICIES:
                    counts = []
                    for seed in range(given.seeds):
                        budget_ms = deadline * FULL_MS
                        arrivals_ms = ARRIVALS[pattern].times(
                            given.requests, full_s=FULL_MS, deadline_s=budget_ms, load=None, seed=seed
                        )
                        device = Device(policy, square, seed)
                        counts += [device.serve(number, arrivals_ms, budget_ms) for number in range(given.requests)]
                    right = np.array((0.0, *ACCURACY))[counts].mean()
                    row.append(f"{100 * right:.1f} / {100 * np.mean(np.array(counts) == 0):.1f}")
                print(*row, sep="\t", flush=True)


if __name__ == "__main__":
    main()
