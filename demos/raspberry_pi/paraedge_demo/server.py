"""Serves the page: static files, and a socket that carries the newest state out and changes of the settings in."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import io
import re
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from paraedge_demo.app import App
from paraedge_demo.connections import giving_way
from paraedge_demo.controls import BUDGET_RANGE_MS, POLICIES
from paraedge_runtime.errors import InputError

__all__ = ["MAX_CLIENTS", "MAX_MESSAGE_BYTES", "MAX_PREVIEW_BYTES", "PageServer", "listen"]

STATIC = Path(__file__).with_name("static")
MAX_CLIENTS = 8
MAX_WAITING = 4 * MAX_CLIENTS  # connections that are no clients yet: those of a page that loads, and strangers'
MAX_MESSAGE_BYTES = 2048  # of what a client says
MAX_PREVIEW_BYTES = 64 * 1024  # of what is shown; a larger one is left out
UPDATE_EVERY_S = 1 / 30  # at most, to each client
LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
COOKIE = "paraedge-demo-token"
HEADERS = [
    ("content-security-policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any that is free.

    Raises:
        InputError: the address is not of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        of_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        why = (error.strerror or str(error)).partition(" (while")[0]  # which says the address again
        option = "--port" if of_port else "--host: 0.0.0.0 is every address of this machine"
        raise InputError(f"cannot listen on {host}, port {port}: {why}; choose another with {option}") from error


class PageServer:
    """The page of one ``App``; ``run`` it in a thread of its own.

    Args:
        app: what to show and control.
        listening: of ``listen``.
        token: whoever connects has to know it; ``None`` for this machine's own browsers only.
    """

    def __init__(self, app: App, listening: socket.socket, token: str | None) -> None:
        self._app = app
        self._listening = listening
        self._clients = 0
        self._told = ""  # what every client is told last: made once
        self._told_of: object = None
        self._news = asyncio.Event()
        routes = [
            Route("/", lambda request: FileResponse(STATIC / "index.html")),
            Mount("/static", StaticFiles(directory=STATIC)),
            WebSocketRoute("/socket", self._socket),
        ]
        config = uvicorn.Config(
            _Gate(Starlette(routes=routes, lifespan=self._lifespan), token),
            http=giving_way(MAX_WAITING),
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            limit_concurrency=MAX_WAITING + 4 * MAX_CLIENTS,  # never reached
            timeout_graceful_shutdown=1,
            server_header=False,
            headers=HEADERS,
            access_log=False,
            log_config=None,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until ``stop``."""
        self._server.run(sockets=[self._listening])

    def stop(self) -> None:
        """End ``run``; safe from any thread."""
        self._server.should_exit = True

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def wake() -> None:  # in the thread that processes frames: only this much of the page is done there
            if self._clients:
                loop.call_soon_threadsafe(self._wake)

        self._app.board.listen(wake)
        yield

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _socket(self, client: WebSocket) -> None:
        if self._clients >= MAX_CLIENTS:
            await client.close(1013, "too many pages are open")
            return
        await client.accept()
        self._clients += 1
        refusals: list[str] = []
        pump = asyncio.create_task(self._pump(client, refusals))
        try:
            while True:
                message = await client.receive()
                if message["type"] == "websocket.disconnect":
                    return
                self._take(message.get("text"), refusals)
        finally:
            self._clients -= 1
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await pump

    async def _pump(self, client: WebSocket, refusals: list[str]) -> None:
        """Tell a client of now, again and again; while it is slow to read, nothing is kept for it."""
        await client.send_text(self._hello())
        told = ""
        while True:
            news = self._news
            if refusals:
                await client.send_text(_json({"type": "refused", "message": refusals.pop(0)}))
                continue
            now = self._now()
            if now is not told:
                told = now
                await client.send_text(now)
                await asyncio.sleep(UPDATE_EVERY_S)
            else:
                await news.wait()

    def _take(self, text: str | None, refusals: list[str]) -> None:
        controls = self._app.controls
        try:
            if controls is None:
                raise InputError("a replay has no settings to change")
            try:
                changes = msgspec.json.decode(text or "", type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise InputError(f"not an object of settings: {error}") from None
            controls.change(changes)
        except InputError as error:
            if len(refusals) < MAX_CLIENTS:
                refusals.append(str(error))
        self._wake()

    def _hello(self) -> str:
        return _json(
            {
                "type": "hello",
                "replay": self._app.controls is None,
                "policies": POLICIES,
                "budget_range_ms": BUDGET_RANGE_MS,
                "recent": [
                    {
                        "latency_ms": record.latency_ms,
                        "budget_ms": record.budget_ms,
                        "deadline_met": record.deadline_met,
                        "used": sum(bar.outcome == "used" for bar in record.branches),
                    }
                    for record in self._app.board.recent()
                ],
            }
        )

    def _now(self) -> str:
        """The state of now; the same string object while nothing has changed."""
        board, controls = self._app.board, self._app.controls
        view = board.look()
        settings = None if controls is None else controls.settings
        key = (view.record, view.messages, board.header, settings)
        if key != self._told_of:
            self._told_of = key
            self._told = _json(
                {
                    "type": "now",
                    "header": board.header,
                    "settings": settings,
                    "frame": view.record,
                    "preview": None if view.preview is None else _preview_url(view.preview),
                    "summary": view.summary,
                    "accuracy": view.summary.accuracy,
                    "messages": view.messages,
                }
            )
        return self._told


def _json(document: Any) -> str:
    return msgspec.json.encode(document).decode()


def _preview_url(preview: NDArray[np.uint8]) -> str | None:
    """A ``data:`` address: small images exactly, as PNG, others as JPEG."""
    from PIL import Image

    small = preview.shape[1] <= 64
    image = Image.fromarray(preview[:, :, 0] if preview.shape[2] == 1 else preview)
    stream = io.BytesIO()
    image.save(stream, "png" if small else "jpeg", **({"compress_level": 1} if small else {"quality": 80}))
    if stream.tell() > MAX_PREVIEW_BYTES:
        return None
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"


class _Gate:
    """Lets in who knows the token; without one, only pages that this machine asked for by a name of its own.

    The check of the names keeps a foreign page in the user's browser from reaching in (DNS rebinding,
    cross-site sockets).
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal: Response | None = None
        if self._token is None:
            if not LOCAL_HOST.fullmatch(connection.headers.get("host", "")):
                refusal = PlainTextResponse("this page is for this machine only; see --host\n", 403)
        elif scope["type"] == "http" and self._is_right(connection.query_params.get("token")):
            refusal = RedirectResponse(connection.url.path, 303)
            refusal.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
        elif not self._is_right(connection.cookies.get(COOKIE)):
            refusal = PlainTextResponse("open the address with the token that was printed at the start\n", 403)
        origin = connection.headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != connection.headers.get("host")
        if scope["type"] == "websocket" and (refusal is not None or foreign):
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: 403
        elif refusal is not None:
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_right(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), (self._token or "").encode())
