"""One self-contained page (HTML) of what was measured on a device; the plots are SVG inside it."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from paraedge_measure.device import Device, Measurement, Sustained
from paraedge_measure.plots.figures import check_matplotlib
from paraedge_runtime.atomic import check_replaceable, new_file
from paraedge_runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_page", "write_page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto }
.wide { overflow-x: auto }
.warning { color: #a33 }
"""
_MARK = '<meta name="generator" content="paraedge">'


def check_page(path: Path) -> None:
    """Before the work whose result is to be drawn.

    Raises:
        InputError: matplotlib is not installed, or something else than such a page stands at ``path``.
    """
    check_matplotlib()
    try:
        check_replaceable(path, _MARK.encode(), "a page")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def write_page(device: Device, path: Path) -> None:
    """Write every measurement of ``device`` as tables and plots; nothing in the page is loaded from elsewhere.

    Raises:
        InputError: as ``check_page``, or the page cannot be written.
    """
    check_page(path)
    body = [f"<h1>{html.escape(device.name)}</h1>", _hardware(device)]
    for measurement in device.measurements:
        body += _section(measurement)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">{_MARK}
<title>{html.escape(device.name)}</title>
<style>{_STYLE}</style></head>
<body>
{chr(10).join(body)}
</body></html>
"""
    try:
        with new_file(path) as building:
            building.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def _hardware(device: Device) -> str:
    if device.hardware is None:
        return "<p>Nothing was measured.</p>"
    known = {
        "processor": device.hardware.cpu,
        "cores": device.hardware.cores,
        "clusters": " | ".join(" ".join(map(str, cluster)) for cluster in device.hardware.clusters),
        "governor": device.hardware.governor,
        "memory": device.hardware.memory_bytes and f"{device.hardware.memory_bytes / 1e9:.1f} GB",
        "system": f"{device.hardware.os}, {device.hardware.kernel}",
    }
    return _table([[name, str(value or "unknown")] for name, value in known.items()], header=None)


def _section(one: Measurement) -> list[str]:
    title = f"{one.bundle_name}, {one.engine} {one.engine_version}, {one.threads} thread(s)"
    latencies = {**one.parts, "request": one.request}
    rows = [
        [name, f"{latency.n:,}"]
        + [
            "" if ms is None else f"{ms:.3f}"
            for ms in (
                latency.first_ms, latency.min_ms, latency.p50_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms
            )
        ]
        for name, latency in latencies.items()
    ]  # fmt: skip
    load = "unknown" if one.other_load is None else f"{100 * one.other_load:.1f} %"
    memory = "unknown" if one.memory_bytes is None else f"{one.memory_bytes / 1e6:.1f} MB"
    warmth = [
        "unknown" if degrees is None else f"{degrees:.0f} °C"
        for degrees in (one.temperature_start_c, one.temperature_end_c)
    ]
    facts = (
        f"{one.measured_at}; load {one.load_ms:.0f} ms; memory {memory}; temperature {' to '.join(warmth)}; "
        f"clock p99.9 {one.timer_jitter_us.p999:.0f} µs, wake-up p99 "
        f"{one.wakeup_us.p99:.0f} µs late; processor time of other programs {load}"
    )
    return [
        f"<h2>{html.escape(title)}</h2>",
        f"<p>{html.escape(facts)}</p>",
        "" if one.valid else '<p class="warning">Not valid: the device was slowed down, or busy otherwise.</p>',
        _svg(_latency_plot(one)),
        _svg(_contention_plot(one)) if one.threads > 1 else "",
        _svg(_sustained_plot(one.sustained)) if one.sustained is not None else "",
        _table(rows, header=["part", "runs", "first", "min", "p50", "p90", "p95", "p99 ms"]),
    ]


def _table(rows: list[list[str]], header: list[str] | None) -> str:
    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    lines = [row(header, "th")] if header else []
    lines += [row(cells, "td") for cells in rows]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _latency_plot(one: Measurement) -> Figure:
    from matplotlib.figure import Figure  # not pyplot: no global state, no screen

    latencies = {**one.parts, "request": one.request}
    figure = Figure(figsize=(8, 0.34 * len(latencies) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    positions = list(range(len(latencies)))
    p50 = [latency.p50_ms for latency in latencies.values()]
    axes.barh(positions, p50, color="#1f6f8b", label="p50")
    axes.hlines(
        positions,
        [latency.min_ms for latency in latencies.values()],
        [latency.p95_ms for latency in latencies.values()],
        color="#d1495b",
        label="min to p95",
    )
    axes.set_yticks(positions, list(latencies))
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_xlim(left=0)
    axes.legend()
    axes.grid(axis="x", alpha=0.3)
    return figure


def _contention_plot(one: Measurement) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, one.threads + 1), one.contention, marker="o", color="#1f6f8b")
    axes.set_xlabel("workers busy")
    axes.set_ylabel("time of a branch, × alone")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.15 * max(one.contention))
    axes.grid(alpha=0.3)
    return figure


def _sustained_plot(one: Sustained) -> Figure:
    """p50 and p95 of every minute; below them clock and temperature, as far as they are known."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    numbers = list(range(1, len(one.minutes) + 1))
    state = {
        "clock, MHz": [minute.frequency_mhz for minute in one.minutes],
        "temperature, °C": [minute.temperature_c for minute in one.minutes],
    }
    known = {name: values for name, values in state.items() if any(value is not None for value in values)}
    figure = Figure(figsize=(8, 2.6 + 1.4 * len(known)), layout="constrained")
    latency, *others = figure.subplots(1 + len(known), 1, sharex=True, squeeze=False)[:, 0]
    latency.plot(numbers, [minute.p50_ms for minute in one.minutes], marker=".", color="#1f6f8b", label="p50")
    latency.plot(numbers, [minute.p95_ms for minute in one.minutes], marker=".", color="#d1495b", label="p95")
    for number, minute in zip(numbers, one.minutes, strict=True):
        if minute.throttled:
            latency.axvspan(number - 0.5, number + 0.5, color="#d1495b", alpha=0.12, linewidth=0)
    latency.set_ylabel("request, ms")
    latency.set_ylim(bottom=0)
    latency.legend()
    for axes, (name, values) in zip(others, known.items(), strict=True):
        axes.plot(numbers, [float("nan") if value is None else value for value in values], marker=".", color="#555")
        axes.set_ylabel(name)
    last = others[-1] if others else latency
    last.set_xlabel(f"minute without a pause, from {one.measured_at} on; shaded: slowed down")
    last.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (latency, *others):
        axes.grid(alpha=0.3)
    return figure


def _svg(figure: Figure) -> str:
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "paraedge"}):  # the same numbers make the same page
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
