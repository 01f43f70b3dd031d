"""Who decides how many branches run: fixed counts, all of them, ALERT-Any, and paraedge's own controller.

Every policy returns at the deadline with the finished branches, by the same engine: they differ in what they start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.deadlines.alert import SlowdownFilter, choose_stages
from paraedge_runtime import Prediction, Session
from paraedge_runtime.errors import InputError, RequestDropped

__all__ = [
    "ALERT",
    "ALL",
    "ANYTIME",
    "DROP",
    "EARLY_STOP",
    "Known",
    "Policy",
    "make_policy",
    "policy_names",
    "select_policies",
]

ALL, ALERT, ANYTIME, EARLY_STOP, DROP = "all", "alert-any", "anytime", "anytime-early-stop", "anytime-drop"
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Known:
    """What a policy may know beforehand.

    Attributes:
        stage_s: (K,) median seconds until 1, 2, … branches are in, on the unloaded machine.
        return_s: median seconds from the last branch to the caller.
        accuracy: (K,) of the prediction of 1, 2, … branches.
    """

    stage_s: tuple[float, ...]
    return_s: float
    accuracy: tuple[float, ...]


class Policy(Protocol):
    """Serves requests, one after another."""

    def __call__(self, image: Image, deadline_s: float, waiting_s: Sequence[float]) -> Prediction | None:
        """A prediction by ``deadline_s``, on the clock of ``time.monotonic()``; ``None`` if the request was dropped.

        Args:
            image: the input.
            deadline_s: until when.
            waiting_s: deadlines of the requests that wait behind this one, the next one's first.
        """


class _Static:
    def __init__(self, session: Session, count: int) -> None:
        self._session = session
        self._count = count

    def __call__(self, image: Image, deadline_s: float, waiting_s: Sequence[float]) -> Prediction:
        return self._session.run(image, deadline_s=deadline_s, branches=self._count, policy="all")


class _AlertAny:
    """Takes the time that is left when it begins, so waiting counts: the original knew one stream only."""

    def __init__(self, session: Session, known: Known) -> None:
        self._session = session
        self._known = known
        self._belief = SlowdownFilter()

    def __call__(self, image: Image, deadline_s: float, waiting_s: Sequence[float]) -> Prediction:
        known = self._known
        left_s = deadline_s - time.monotonic() - known.return_s
        count = choose_stages(self._belief, known.stage_s, known.accuracy, left_s)
        prediction = self._session.run(image, deadline_s=deadline_s, branches=count, policy="all")
        ends_ms = sorted(part.end_ms for part in prediction.timeline if part.part != "stem")
        if ends_ms:  # one observation a request: the last stage that ended
            self._belief.observe(ends_ms[-1] / 1e3 / known.stage_s[len(ends_ms) - 1])
        return prediction


class _Anytime:
    def __init__(self, session: Session, early_stop: bool, on_overload: str) -> None:
        self._session = session
        self._early_stop = early_stop
        self._on_overload = on_overload

    def __call__(self, image: Image, deadline_s: float, waiting_s: Sequence[float]) -> Prediction | None:
        try:
            return self._session.run(
                image,
                deadline_s=deadline_s,
                waiting_s=waiting_s,
                early_stop=self._early_stop,
                on_overload=self._on_overload,
            )
        except RequestDropped:
            return None


def policy_names(num_branches: int) -> tuple[str, ...]:
    """Every policy for a bundle of so many branches. ``all`` is ``static-k`` with k = all of them."""
    return (*(f"static-{count}" for count in range(1, num_branches)), ALL, ALERT, ANYTIME, EARLY_STOP, DROP)


def select_policies(chosen: Iterable[str], num_branches: int) -> tuple[str, ...]:
    """Policies by name, each once, in the order of ``policy_names``; ``static`` means each ``static-k``.

    Raises:
        InputError: unknown name.
    """
    names = policy_names(num_branches)
    wanted: set[str] = set()
    for name in chosen:
        if name == "static":
            wanted.update(known for known in names if known.startswith("static-"))
        elif name in names:
            wanted.add(name)
        else:
            raise InputError(f"unknown policy {name!r}; choose from static, {', '.join(names)}")
    return tuple(name for name in names if name in wanted)


def make_policy(name: str, known: Known, shared: Session, open_session: Callable[[], Session]) -> Policy:
    """A policy that has seen no request yet.

    Args:
        name: one of ``policy_names``.
        known: what it may know.
        shared: for policies that do not decide by what the session has learned.
        open_session: a session for one policy alone: a controller would learn from the requests of others.
    """
    if name in (ANYTIME, EARLY_STOP, DROP):
        return _Anytime(open_session(), name == EARLY_STOP, "drop" if name == DROP else "run")
    if name == ALERT:
        return _AlertAny(shared, known)
    return _Static(shared, len(known.stage_s) if name == ALL else int(name.removeprefix("static-")))
