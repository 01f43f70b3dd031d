"""What a session may know beforehand: how long its parts take on this device."""

from __future__ import annotations

from dataclasses import dataclass

from paraedge_runtime._arguments import as_list, as_number

__all__ = ["REQUESTS_TO_LEARN", "Latency"]

REQUESTS_TO_LEARN = 20  # until a session knows the latency of its parts by itself


@dataclass(frozen=True)
class Latency:
    """Measured latency of the parts of one session; ``paraedge_measure.known_latency`` reads it from a profile.

    Attributes:
        part_ms: median time of each loaded part running alone: the stem, then the branches in order.
        contention: factor by which a branch is slower while 1, 2, … branches run; empty if unknown.
    """

    part_ms: tuple[float, ...]
    contention: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("part_ms", "contention"):
            numbers = tuple(
                as_number(f"a number of {name}", value, finite=False) for value in as_list(name, getattr(self, name))
            )
            object.__setattr__(self, name, numbers)
