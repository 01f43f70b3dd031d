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
from collections.abc import Iterable, Iterator
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
    "indexes_text",
    "json_option",
    "print_json",
    "print_next",
    "print_progress",
    "progress_bar",
    "size_text",
    "table",
    "working",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


_NEVER_WRAPS = 100_000  # columns


@functools.cache
def console() -> Console:
    """Where results go. On a terminal lines are wrapped between words; in a pipe or a file they stay whole."""
    return _console(sys.stdout)


@functools.cache
def _progress_console() -> Console:
    """A copy of stderr: the bar stays on the terminal while an engine's chatter on stderr is captured."""
    return _console(os.fdopen(os.dup(2), "w", buffering=1, errors="replace"))


def _console(file: TextIO) -> Console:
    """What is no terminal gets whole lines only, and no bar, whatever FORCE_COLOR says."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class _PrintableConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text, lines=True))

    is_terminal = file.isatty()
    width = None if is_terminal else _NEVER_WRAPS
    return _PrintableConsole(
        file=file, width=width, force_terminal=is_terminal, markup=False, emoji=False, highlight=False
    )


def echo(text: str, *, err: bool = False) -> None:
    """One line, or several, without colours."""
    click.echo(printable(text, lines=True), err=err)


def print_next(*arguments: object) -> None:
    """The command to go on with, quoted so that a shell takes it as it is."""
    console().print(f"\nNext: {shlex.join(map(str, arguments))}", soft_wrap=True)  # to copy in one piece


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """One JSON document on stdout. Its text is Unicode: bytes of a file's name that are not UTF-8 are replaced."""
    from paraedge_runtime.inputs import display_name

    shown = display_name(json.dumps(document, ensure_ascii=False))
    click.echo(json.dumps(json.loads(shown), indent=indent))


def print_progress(text: str) -> None:
    """A line on stderr, above the bar if there is one: for long work, so that a log shows how far it is."""
    _progress_console().print(text)


def progress_bar(*extra_columns: str, is_steady: bool = True) -> Progress:
    """A progress bar on stderr, which leaves nothing behind: on a terminal it vanishes, elsewhere it is not shown.

    Args:
        extra_columns: formats of short texts after the bar.
        is_steady: the steps take equal times, so what remains can be told; else the time that has passed is shown.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    shown = _progress_console()
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(max_width=32, no_wrap=True)),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn() if is_steady else TimeElapsedColumn(),
        *(
            TextColumn(column, markup=False, table_column=Column(max_width=10, no_wrap=True))
            for column in extra_columns
        ),
        console=shown if shown.is_terminal else Console(quiet=True, markup=False, emoji=False),
        transient=True,
    )


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner while engines load and run; what they print about themselves stays off the terminal."""
    from rich.text import Text

    from paraedge.cli._chatter import captured_chatter

    with _progress_console().status(Text(what)), captured_chatter():
        yield


def table(*columns: str) -> Table:
    """A plain table that fits a terminal of 80 columns if its texts can: these are wrapped between words, nothing else.

    A column whose name starts with ``>`` holds numbers, aligned right; with ``~``, text that may be wrapped.
    """
    from rich.table import Table

    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column.startswith(">") else "left"
        wraps = column.startswith("~")
        result.add_column(column.lstrip(">~"), justify=justify, overflow="fold", no_wrap=not wraps)
    return result


def indexes_text(indexes: Iterable[int]) -> str:
    """``0-2,5``: indexes in order, runs of them in short."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], index]
        else:
            runs.append([index])
    return ",".join("-".join(map(str, run)) for run in runs)


def size_text(size_bytes: int) -> str:
    """``1.2 MB``: decimal units, as file managers and app stores print them."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    return f"{size_bytes / 1000:.1f} kB" if size_bytes < 1_000_000 else f"{size_bytes / 1e6:.2f} MB"


def as_percent(fraction: float) -> str:
    """``92.5 %``."""
    return f"{100 * fraction:.2f} %"
