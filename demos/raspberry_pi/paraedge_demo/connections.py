"""HTTP connections of the page: where there are too many, the oldest gives way. Silent ones keep nobody out."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["giving_way"]


def giving_way(most: int) -> type[H11Protocol]:
    """A protocol for ``uvicorn.Config(http=...)`` of one server.

    Args:
        most: connections at a time, from the moment they are made until they end or become sockets.
    """

    waiting: dict[H11Protocol, None] = {}  # the oldest first

    class GivingWay(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            waiting[self] = None
            if len(waiting) > most:
                oldest = next(iter(waiting))
                del waiting[oldest]
                oldest.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            waiting.pop(self, None)
            super().connection_lost(exc)

        def handle_websocket_upgrade(self, event: Any) -> None:
            waiting.pop(self, None)
            super().handle_websocket_upgrade(event)

    return GivingWay
