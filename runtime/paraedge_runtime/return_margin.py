"""How long before a deadline a session has to begin to return, learned from how late its answers were."""

from __future__ import annotations

__all__ = ["ReturnMargin"]

_FIRST_S = 1e-4
_SMALLEST_S, _LARGEST_S = 2e-5, 4e-4
_LATE_RATE, _STEP_S = 0.005, 2e-5  # adaptive conformal inference, as in the controller: rate aimed at, step
_OUTAGE_S = 5e-4  # a thread that did not get the processor for so long: no margin would have helped
_HANDOVER_S = 3e-5  # from the session's last look at the clock to the caller's


class ReturnMargin:
    """The time that waking up, Python's own work and handing over take, in all but 0.5 % of the answers.

    Attributes:
        seconds: the margin now.
    """

    def __init__(self) -> None:
        self.seconds = _FIRST_S

    def returned(self, deadline_s: float, now_s: float) -> None:
        """An answer that the deadline cut short is about to be handed over, ``now_s``.

        Others say nothing: what came later than the margin begins was computing, not returning.
        """
        needed_s = now_s + _HANDOVER_S - (deadline_s - self.seconds)
        if needed_s > _OUTAGE_S:
            return
        step_s = _STEP_S * ((1 - _LATE_RATE) if needed_s > self.seconds else -_LATE_RATE)
        self.seconds = min(max(self.seconds + step_s, _SMALLEST_S), _LARGEST_S)
