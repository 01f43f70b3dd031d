"""What the commands share to talk to people (rich, on stderr for progress) and to scripts (``--json``).

Nothing here reads markup: a name with square brackets is shown as it is, in a line, a table, a title or a bar. Colour
is given beside the text (``style=``). Whatever is shown goes through ``printable``, so that no label, name or message
from outside says anything to the terminal. tests/test_markup.py refuses what goes around that.

rich is imported when something is shown: printing help needs none of it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from paraedge_runtime._console import printable

if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Console, JustifyMethod
    from rich.progress import Progress
    from rich.table import Table

__all__ = [
    "as_percent",
    "console",
    "echo",
    "json_option",
    "print_json",
    "print_next",
    "progress_bar",
    "size_text",
    "table",
    "working",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@functools.cache
def console() -> Console:
    """Where results go. Into a pipe or a file, tables keep their full width."""
    return _console(width=None if sys.stdout.isatty() else 200, soft_wrap=True)


@functools.cache
def _progress_console() -> Console:
    """A copy of stderr: the bar stays on the terminal while an engine's chatter on stderr is captured."""
    return _console(file=os.fdopen(os.dup(2), "w", buffering=1, errors="replace"))


def _console(*, file: TextIO | None = None, width: int | None = None, soft_wrap: bool = False) -> Console:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class _PrintableConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text, lines=True))

    return _PrintableConsole(file=file, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def echo(text: str, *, err: bool = False) -> None:
    """One line, or several, without colours."""
    click.echo(printable(text, lines=True), err=err)


def print_next(*arguments: object) -> None:
    """The command to go on with, quoted so that a shell takes it as it is."""
    console().print(f"\nNext: {shlex.join(map(str, arguments))}")


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """One JSON document on stdout. Its text is Unicode: bytes of a file's name that are not UTF-8 are replaced."""
    from paraedge_runtime.inputs import display_name

    shown = display_name(json.dumps(document, ensure_ascii=False))
    click.echo(json.dumps(json.loads(shown), indent=indent))


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
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *(TextColumn(column, markup=False) for column in extra_columns),
        console=_progress_console(),
    )


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner while engines load and run; what they print about themselves stays off the terminal."""
    from rich.text import Text

    from paraedge.cli._chatter import captured_chatter

    with _progress_console().status(Text(what)), captured_chatter():
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
