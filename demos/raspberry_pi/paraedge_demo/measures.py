"""Rolling figures of the processed frames, in bounded memory."""

from __future__ import annotations

from collections import deque

import msgspec

from paraedge_demo.messages import FrameRecord

__all__ = ["WINDOW", "Measures", "Summary"]

WINDOW = 300  # frames: 20 seconds at 15 fps


class Summary(msgspec.Struct, frozen=True):
    """Totals since the start, then figures of the last ``WINDOW`` frames.

    Attributes:
        frames: processed.
        dropped_frames: replaced by newer ones before they were looked at.
        misses: predictions after the deadline.
        right: correct predictions, of those in ``judged``.
        judged: predictions whose truth is known.
        p50_ms, p95_ms: latency.
        overhead_p95_ms: what came on top of inference.
        recent_misses: of the last frames.
        mean_branches: used, on average.
        fps: predictions per second.
    """

    frames: int = 0
    dropped_frames: int = 0
    misses: int = 0
    right: int = 0
    judged: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    overhead_p95_ms: float = 0.0
    recent_misses: int = 0
    mean_branches: float = 0.0
    fps: float = 0.0

    @property
    def accuracy(self) -> float | None:
        """So far; ``None`` while no truth is known."""
        return self.right / self.judged if self.judged else None


class Measures:
    """Adds up records. Not safe for several threads by itself; ``Board`` has the lock."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float, float, bool, int]] = deque(maxlen=WINDOW)
        self._frames = self._misses = self._right = self._judged = self._dropped = 0

    def add(self, record: FrameRecord) -> None:
        """Take a frame into account."""
        used = sum(bar.outcome == "used" for bar in record.branches)
        self._recent.append((record.at_s, record.latency_ms, record.overhead_ms, record.deadline_met, used))
        self._frames += 1
        self._misses += not record.deadline_met
        self._dropped = record.dropped_frames
        if record.truth is not None:
            self._judged += 1
            self._right += record.truth == record.label

    def summary(self) -> Summary:
        """The figures of now."""
        if not self._recent:
            return Summary()
        at_s, latency, overhead, met, used = zip(*self._recent, strict=True)
        span_s = at_s[-1] - at_s[0]
        return Summary(
            frames=self._frames,
            dropped_frames=self._dropped,
            misses=self._misses,
            right=self._right,
            judged=self._judged,
            p50_ms=_quantile(latency, 0.5),
            p95_ms=_quantile(latency, 0.95),
            overhead_p95_ms=_quantile(overhead, 0.95),
            recent_misses=met.count(False),
            mean_branches=round(sum(used) / len(used), 2),
            fps=round((len(at_s) - 1) / span_s, 1) if span_s > 0 else 0.0,
        )


def _quantile(values: tuple[float, ...], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)
