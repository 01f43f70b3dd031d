"""What a person may change while the demo runs: refused whole when any of it cannot be."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from paraedge_runtime.errors import InputError

__all__ = ["BUDGET_RANGE_MS", "POLICIES", "Controls", "Settings"]

BUDGET_RANGE_MS = (0.5, 1000.0)

# Which branches are started; every policy returns at the deadline with the finished ones.
POLICIES = {
    "anytime": "those that will probably end in time",
    "all": "every one, however late it may be",
    "static": "always the first so many",
}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One choice of everything.

    Attributes:
        budget_ms: from a frame's arrival to its prediction.
        threads: threads that run branches.
        policy: a key of ``POLICIES``.
        count: branches that the policy ``static`` starts.
        load: whether hogs compete for the cores.
    """

    budget_ms: Annotated[float, Meta(ge=BUDGET_RANGE_MS[0], le=BUDGET_RANGE_MS[1])]
    threads: Annotated[int, Meta(ge=1)]
    policy: str = "anytime"
    count: Annotated[int, Meta(ge=1)] = 1
    load: bool = False


class Controls:
    """The settings of now. Reading takes no lock: they are replaced whole.

    Attributes:
        settings: those of now.
        news: set by every change; whoever acts on changes waits for it and clears it.
    """

    def __init__(self, settings: Settings, max_threads: int, max_count: int) -> None:
        self._lock = threading.Lock()
        self._max_threads, self._max_count = max_threads, max_count
        self.settings = self._checked(msgspec.to_builtins(settings))
        self.news = threading.Event()

    def change(self, changes: dict[str, Any]) -> Settings:
        """Change some of the settings.

        Raises:
            InputError: unknown name, or a value that cannot be; then nothing has changed.
        """
        with self._lock:
            self.settings = self._checked({**msgspec.to_builtins(self.settings), **changes})
        self.news.set()
        return self.settings

    def fit(self, max_count: int) -> None:
        """Another bundle is loaded, of so many branches."""
        with self._lock:
            self._max_count = max_count
            self.settings = msgspec.structs.replace(self.settings, count=min(self.settings.count, max_count))

    def _checked(self, values: dict[str, Any]) -> Settings:
        try:
            settings = msgspec.convert(values, Settings)
        except msgspec.ValidationError as error:
            raise InputError(f"invalid settings: {error}") from None
        if settings.policy not in POLICIES:
            raise InputError(f"unknown policy {settings.policy!r}; choose one of {', '.join(POLICIES)}")
        if settings.threads > self._max_threads:
            raise InputError(f"threads must be at most {self._max_threads} here, got {settings.threads}")
        if settings.count > self._max_count:
            raise InputError(f"count is {settings.count}; the bundle has {self._max_count} branches")
        return settings
