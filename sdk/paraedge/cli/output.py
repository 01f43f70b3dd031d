"""What the commands share to talk to people (rich, on stderr for progress) and to scripts (``--json``).

rich is imported when something is shown: printing help needs none of it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.progress import Progress
    from rich.table import Table

__all__ = ["as_percent", "console", "json_option", "print_json", "progress_bar", "size_text", "table", "working"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@functools.cache
def console() -> Console:
    """Where results go. Into a pipe or a file, tables keep their full width."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


@functools.cache
def _progress_console() -> Console:
    """A copy of stderr: the bar stays on the terminal while an engine's chatter on stderr is captured."""
    from rich.console import Console

    return Console(file=os.fdopen(os.dup(2), "w", buffering=1))


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2))


def progress_bar(*extra_columns: str) -> Progress:
    """A progress bar on stderr: stdout stays clean for results."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *(TextColumn(column) for column in extra_columns),
        console=_progress_console(),
    )


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner while engines load and run; what they print about themselves stays off the terminal."""
    from paraedge.cli._chatter import captured_chatter

    with _progress_console().status(what), captured_chatter():
        yield


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table; columns whose name starts with ``>`` are aligned right."""
    from rich.table import Table

    result = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column.startswith(">") else "left"
        result.add_column(column.lstrip(">"), justify=justify, overflow="fold")
    return result


def size_text(size_bytes: int) -> str:
    """``1.2 MB``: decimal units, as file managers and app stores print them."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    return f"{size_bytes / 1000:.1f} kB" if size_bytes < 1_000_000 else f"{size_bytes / 1e6:.2f} MB"


def as_percent(fraction: float) -> str:
    """``92.5 %``."""
    return f"{100 * fraction:.2f} %"
