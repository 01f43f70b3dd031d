"""The headless view: image, prediction, a bar per branch; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from paraedge_demo.board import Board, View
from paraedge_demo.messages import BranchBar, FrameRecord
from paraedge_runtime._console import printable

__all__ = ["BAR_STYLES", "PrintableConsole", "TerminalView"]

BAR_STYLES = {"used": "green", "late": "red", "dropped": "bright_black", "failed": "magenta"}
IMAGE_WIDTH = 28
IMAGE_HEIGHT = 14  # lines
BAR_WIDTHS = (16, 40)  # as the terminal has room; where there is none for the narrowest, the image is left out
FRAME = 4  # columns around everything
TEXTS = 18  # columns around a bar: which branch, and what became of it
GAP = 3
LINES = 9  # around the image: the frame, what the signs mean, the prediction, the figures, messages
LINE_EVERY_S = 5.0


class PrintableConsole(Console):
    """Shows control characters of labels and names as what they are."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:  # noqa: D102
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, lines=True))


class TerminalView:
    """Shows the board on a console: call ``refresh`` now and then."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._console = console
        self._next_line_s = time.monotonic() + LINE_EVERY_S
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(self._screen(), console=console, auto_refresh=False, redirect_stderr=False)
            self._live.start()

    def refresh(self) -> None:
        """Show what is on the board now."""
        if self._live is not None:
            self._live.update(self._screen(), refresh=True)
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s += LINE_EVERY_S
            self._console.print(_summary_text(self._board.look()), soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was, with the figures in it."""
        if self._live is not None:
            self.refresh()
            self._live.stop()
            self._live = None
        view = self._board.look()
        for message in view.messages:
            self._console.print(f"- {message}", soft_wrap=True)
        self._console.print(_summary_text(view), soft_wrap=True)

    def _screen(self) -> RenderableType:
        view, header = self._board.look(), self._board.header
        if view.record is None:
            last = view.messages[-1] if view.messages else "waiting for the first image"
            return Text(last, style="yellow")
        room = self._console.width - FRAME - TEXTS
        beside = room - IMAGE_WIDTH - GAP
        body = Table.grid(padding=(0, GAP))
        if view.preview is None or beside < BAR_WIDTHS[0] or self._console.height < IMAGE_HEIGHT + LINES:
            body.add_row(_branch_table(view.record, max(1, min(room, BAR_WIDTHS[1]))))
        else:
            body.add_row(_image_text(view.preview), _branch_table(view.record, min(beside, BAR_WIDTHS[1])))
        lines: list[RenderableType] = [
            body,
            _signs_text(view.record),
            _prediction_text(view.record),
            _summary_text(view),
        ]
        lines += [Text(f"- {message}", style="yellow") for message in view.messages[-2:]]
        title = Text(f"{header.bundle}, {header.engine}")  # rich reads markup in a str
        return Panel(Group(*lines), title=title, title_align="left", expand=False)


def _signs_text(record: FrameRecord) -> Text:
    """What is drawn of a bar beside the bar."""
    text = "│ deadline"
    if record.return_ms:
        margin_ms = record.budget_ms - _waited_ms(record) - record.return_ms
        text += f"  ░ {max(margin_ms, 0):.2f} ms reserved for the return  ─ predicted time"
    return Text(text, style="bright_black")


def _waited_ms(record: FrameRecord) -> float:
    """Bars count from the request, the budget from the frame."""
    return record.latency_ms - record.inference_ms


def _prediction_text(record: FrameRecord) -> Text:
    text = Text.assemble((record.label or "unknown", "bold"), f" {100 * record.confidence:.0f} %")
    if record.truth is not None:
        right = record.truth == record.label
        text.append("  right" if right else f"  is {record.truth}", style="green" if right else "red")
    text.append(f"  {record.latency_ms:.1f} of {record.budget_ms:g} ms")
    if not record.deadline_met:
        text.append("  too late", style="bold red")
    policy = f"static {record.count}" if record.policy == "static" else record.policy
    text.append(f"  {policy}, {record.threads} thread(s){', load on' if record.load else ''}", style="bright_black")
    return text


def _summary_text(view: View) -> Text:
    summary = view.summary
    accuracy = "" if summary.accuracy is None else f", {100 * summary.accuracy:.1f} % right"
    return Text(
        f"{summary.frames} frames at {summary.fps:g} fps{accuracy}, {summary.misses} misses, "
        f"{summary.dropped_frames} frames dropped; latency p50 {summary.p50_ms:.1f}, p95 {summary.p95_ms:.1f} ms, "
        f"{summary.mean_branches:g} branches"
    )


def _branch_table(record: FrameRecord, width: int) -> Table:
    table = Table.grid(padding=(0, 1))
    wait_ms = _waited_ms(record)
    span_ms = 1.15 * max(record.budget_ms, wait_ms + max(bar.end_ms for bar in record.branches))

    def cells(start_ms: float, end_ms: float) -> range:
        first = int(width * (wait_ms + start_ms) / span_ms)
        return range(first, min(max(first + 1, round(width * (wait_ms + end_ms) / span_ms)), width))

    deadline = int(width * record.budget_ms / span_ms)
    margin = cells(record.return_ms, record.budget_ms - wait_ms) if record.return_ms else range(0)
    for bar in record.branches:
        ran = cells(bar.start_ms, bar.end_ms or span_ms) if bar.thread >= 0 else range(0)  # no end: it still ran
        predicted = cells(bar.predicted_start_ms, bar.predicted_end_ms) if bar.predicted_end_ms else range(0)
        table.add_row(f"branch {bar.index}", _bar_text(bar, ran, predicted, margin, deadline, width), bar.outcome)
    return table


def _bar_text(bar: BranchBar, ran: range, predicted: range, margin: range, deadline: int, width: int) -> Text:
    text = Text()
    for place in range(width):
        if place == deadline:
            text.append("│", style="bold yellow")
        elif place in ran:
            text.append("█", style=BAR_STYLES[bar.outcome])
        elif place in predicted:
            text.append("─", style=BAR_STYLES[bar.outcome])
        else:
            text.append("░" if place in margin else " ", style="yellow")
    return text


def _image_text(image: NDArray[np.uint8]) -> Text:
    """Two pixel rows a line, as half blocks; larger images are sampled."""
    step = max(1, -(-image.shape[1] // IMAGE_WIDTH))
    colours = np.broadcast_to(image[::step, ::step], (*image[::step, ::step].shape[:2], 3))
    text = Text()
    for upper, lower in zip(colours[0::2], colours[1::2], strict=False):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", style=f"rgb({top[0]},{top[1]},{top[2]}) on rgb({bottom[0]},{bottom[1]},{bottom[2]})")
        text.append("\n")
    return text
