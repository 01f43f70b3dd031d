"""``paraedge-demo``: options, threads, signals."""

from __future__ import annotations

import contextlib
import re
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from paraedge_runtime._console import printable, replace_unprintable, silence_decoders
from paraedge_runtime.errors import BundleError, EngineUnavailable, InputError, ParaEdgeError

if TYPE_CHECKING:
    from paraedge_demo.app import App

__all__ = ["demo", "main", "stopping_at_signals"]

REFRESH_S = 0.2
# A view's thread that computes holds the interpreter for that long at most when a prediction is due; Python's own
# 5 ms is a quarter of the default budget.
SWITCH_INTERVAL_S = 0.0005
LOCAL = "127.0.0.1"
TOKEN = re.compile(r"[A-Za-z0-9_.~-]{16,}")  # fits an address and a cookie as it is
_MISTAKES = (BundleError, EngineUnavailable, InputError)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="paraedge")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Bundle to run, a folder or a zip. [default: a packaged model; waste for a camera]",
)
@click.option(
    "--source",
    default="packaged",
    show_default=True,
    help="packaged (the bundle's own inputs), folder, camera, wav-folder or microphone.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder of images (--source folder) or of .wav files (--source wav-folder).",
)
@click.option("--camera", default=0, show_default=True, help="Number of the camera for --source camera.")
@click.option("--fps", type=click.FloatRange(0.1, 120), default=15.0, show_default=True, help="Images per second.")
@click.option(
    "--budget-ms",
    type=float,
    help="Time limit from a frame's arrival to its prediction, in milliseconds. [default: twice the time of all "
    "branches, at least 5]",
)
@click.option("--threads", type=int, help="Threads for branches. [default: one per branch, up to the cores]")
@click.option(
    "--policy",
    default="anytime",
    show_default=True,
    help="Which branches run: anytime (those that fit the budget), all or static.",
)
@click.option("--count", default=1, show_default=True, help="Number of branches for --policy static.")
@click.option(
    "--key",
    "trusted_keys",
    multiple=True,
    help="Require a signature by this key: a public key, its file, or a folder of keys. May be repeated. "
    "[default: $PARAEDGE_TRUSTED_KEYS]",
)
@click.option("--allow-downgrade", is_flag=True, help="Accept a new bundle with a lower model version.")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1, min_open=True),
    help="Show a prediction with a lower confidence as unknown; above 0, at most 1.",
)
@click.option("--load", is_flag=True, help="Keep half of the cores busy with other work.")
@click.option("--headless", is_flag=True, help="Show predictions in the terminal instead of on a page.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many predictions.")
@click.option("--record", type=click.Path(path_type=Path), help="Write one JSON line per prediction to this file.")
@click.option("--replay", type=click.Path(path_type=Path), help="Show a file written by --record; runs no model.")
@click.option("--host", help="Address to serve the page on, protected by a token. [default: 127.0.0.1, no token]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8360, show_default=True, help="Port; 0 for any free one."
)
@click.option(
    "--token",
    envvar="PARAEDGE_DEMO_TOKEN",
    help="Token that the page's address must contain. [default: a random one with --host]",
)
def demo(
    bundle: Path | None,
    source: str,
    folder: Path | None,
    camera: int,
    fps: float,
    budget_ms: float | None,
    threads: int | None,
    policy: str,
    count: int,
    trusted_keys: tuple[str, ...],
    allow_downgrade: bool,
    min_confidence: float | None,
    load: bool,
    headless: bool,
    frames: int | None,
    record: Path | None,
    replay: Path | None,
    host: str | None,
    port: int,
    token: str | None,
) -> None:
    """Show every branch of every prediction against the deadline.

    Serves a local page, or draws in the terminal with --headless.

    \b
    Example:
      paraedge-demo --bundle pi.paraedge
      paraedge-demo --bundle pi.paraedge --source camera --budget-ms 10 --headless
      paraedge-demo --source camera
      paraedge-demo --bundle keywords.paraedge --source microphone
      paraedge-demo --replay out.jsonl
    """
    from paraedge_demo.app import LiveOptions, live_app, replay_app

    listening = None
    if not headless:
        from paraedge_demo.server import listen

        if token is not None and not TOKEN.fullmatch(token):
            raise InputError(
                "--token must have at least 16 letters, digits or any of _.~-; leave it out to generate one"
            )
        listening = listen(host or LOCAL, port)
    if replay is not None:
        if bundle is not None or record is not None:
            raise InputError("--replay shows a recording and runs nothing; leave --bundle and --record out")
        app = replay_app(replay, ends=headless, frames=frames or 0)
    else:
        app = live_app(
            LiveOptions(
                bundle or _packaged_bundle(source),
                source,
                folder,
                camera,
                fps,
                budget_ms,
                threads,
                policy,
                count,
                load,
                frames or 0,
                record,
                trusted_keys or None,
                allow_downgrade,
                min_confidence,
            )
        )
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with stopping_at_signals(app.stop), app:
        if listening is None:
            _show_in_terminal(app)
        else:
            _show_on_page(app, listening, host, token or (secrets.token_urlsafe(16) if host else None))


def _packaged_bundle(source: str) -> Path:
    """For whoever named no bundle on a workstation: ``waste`` for a camera, else the default model."""
    from paraedge.cli.packaged_bundle import packaged_bundle  # the one import that a device can do without
    from paraedge.packaged import DEFAULT_MODEL

    return packaged_bundle(None, "waste" if source == "camera" else DEFAULT_MODEL)


@contextlib.contextmanager
def stopping_at_signals(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` at Ctrl-C or SIGTERM, by another thread: this one may hold the lock inside ``stop.wait``."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: threading.Thread(target=stop.set, daemon=True).start())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_in_terminal(app: App) -> None:
    from paraedge_demo.terminal import PrintableConsole, TerminalView

    view = TerminalView(app.board, PrintableConsole(markup=False, emoji=False, highlight=False))
    try:
        while not app.stop.wait(REFRESH_S):
            view.refresh()
    finally:
        view.close()


def _show_on_page(app: App, listening: socket.socket, host: str | None, token: str | None) -> None:
    from paraedge_demo.server import PageServer

    page = PageServer(app, listening, token)
    server = threading.Thread(target=page.run, name="demo-page", daemon=True)
    server.start()
    port = listening.getsockname()[1]
    name = LOCAL if not host else socket.gethostname() if host in ("0.0.0.0", "::") else host
    _echo(f"open http://{f'[{name}]' if ':' in name else name}:{port}/{f'?token={token}' if token else ''}")
    try:
        while not app.stop.wait(REFRESH_S) and server.is_alive():
            pass
    finally:
        page.stop()
        server.join()
    for message in app.board.look().messages:
        _echo(f"- {message}")


def _echo(line: str, *, err: bool = False) -> None:
    click.echo(printable(line), err=err)


def _fail(message: str, code: int) -> NoReturn:
    _echo(f"Error: {message}", err=True)
    sys.exit(code)


def main() -> NoReturn:
    """Entry point: exits with 0 when stopped by Ctrl-C or SIGTERM, 2 for a user's mistake, 1 for a failure."""
    replace_unprintable()
    silence_decoders()
    try:
        demo.main(standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except ParaEdgeError as error:
        _fail(str(error), 2 if isinstance(error, _MISTAKES) else 1)
    except ModuleNotFoundError as error:
        _fail(f"the demo needs {error.name}, which is not installed; pip install 'paraedge[demo,litert]'", 2)
    except Exception as error:
        _fail(f"{type(error).__name__}: {error}", 1)
    sys.exit(0)
