"""ALERT-Any: the decision rule of ALERT for an anytime network, as a baseline.

C. Wan et al., ALERT: Accurate Learning for Energy and Timeliness, USENIX ATC 2020. One slowdown factor for
the whole machine follows a Kalman filter with adaptive process noise; a stage that takes t unloaded is taken
to need slowdown × t, normally distributed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["SlowdownFilter", "choose_stages"]


class SlowdownFilter:
    """The slowdown against the profile: mean ``mu`` and variance ``variance``.

    The constants are the paper's, as far as they are known; they are not tuned here.
    """

    MEASUREMENT_NOISE = 0.001  # R
    LEAST_PROCESS_NOISE = 0.1  # Q0
    FORGETTING = 0.3  # a

    def __init__(self) -> None:
        self.mu = 1.0
        self.variance = 0.1
        self._gain = 0.5
        self._process_noise = self.LEAST_PROCESS_NOISE
        self._previous_error = 0.0

    def observe(self, slowdown: float) -> None:
        """Take in one measured time ÷ profiled time."""
        error = slowdown - self.mu
        innovation = (self._gain * self._previous_error) ** 2
        self._process_noise = max(
            self.LEAST_PROCESS_NOISE, self.FORGETTING * self._process_noise + (1 - self.FORGETTING) * innovation
        )
        predicted = (1 - self._gain) * self.variance + self._process_noise
        self._gain = predicted / (predicted + self.MEASUREMENT_NOISE)
        self.mu += self._gain * error
        self.variance = (1 - self._gain) * self.variance + self._process_noise
        self._previous_error = error

    def in_time(self, stage_s: float, left_s: float) -> float:
        """Probability that a stage of ``stage_s`` unloaded seconds ends within ``left_s``."""
        return 0.5 * math.erfc((self.mu - left_s / stage_s) / math.sqrt(2 * self.variance))


def choose_stages(belief: SlowdownFilter, stage_s: Sequence[float], accuracy: Sequence[float], left_s: float) -> int:
    """How many stages to run: the fewest of those with the highest expected accuracy.

    A prediction that no stage gives in time is wrong; otherwise the last stage in time counts. Of a choice
    of k the expectation is the staircase sum over stages i ≤ k of P(the last one in time is i) · accuracy_i.

    Args:
        belief: about the slowdown.
        stage_s: (K,) unloaded seconds until stage 1, 2, … is ready.
        accuracy: (K,) of each stage's prediction.
        left_s: seconds until the deadline.
    """
    probability = [belief.in_time(stage, left_s) for stage in stage_s]
    best, best_expected, earlier = 1, -1.0, 0.0
    for stage, (p, q) in enumerate(zip(probability, accuracy, strict=True), start=1):
        expected = earlier + p * q
        if expected > best_expected:
            best, best_expected = stage, expected
        following = probability[stage] if stage < len(probability) else 0.0
        earlier += (p - following) * q
    return best
