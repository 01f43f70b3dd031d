"""``paraedge bench``: which policy keeps deadlines best, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paraedge.cli._labelled import need_classifier
from paraedge.cli.options import DATASET, data_dir_option, engine_option, threads_option, trusted_keys_option
from paraedge.cli.output import (
    as_percent,
    console,
    json_option,
    print_json,
    print_progress,
    progress_bar,
    table,
    working,
)
from paraedge.cli.packaged_bundle import packaged_bundle

if TYPE_CHECKING:
    from paraedge_measure.deadlines.cells import Cell
    from paraedge_measure.deadlines.records import Record, RecordFile
    from paraedge_measure.deadlines.runner import Bench
    from paraedge_measure.deadlines.summary import CellSummary


class _Listed(click.ParamType):  # type: ignore[type-arg]
    """``a,b,c``, each of them converted."""

    def __init__(self, kind: type) -> None:
        self.name = "list"
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        pieces = [piece.strip() for piece in value.split(",") if piece.strip()]
        try:
            return tuple(self._kind(piece) for piece in pieces)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, such as 0.4,0.7")


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "--deadlines",
    type=_Listed(float),
    default="0.7,1.0",
    show_default=True,
    help="Deadlines, as multiples of the full model's median time.",
)
@click.option(
    "--arrivals",
    type=_Listed(str),
    default="periodic",
    show_default=True,
    help="Arrival patterns: closed, periodic, poisson, bursty.",
)
@click.option(
    "--interference",
    type=_Listed(str),
    default="none",
    show_default=True,
    help="Background load: none, compute, memory, square (compute, on and off), quota (limited CPU time), "
    "throttle (slower and faster in steps).",
)
@click.option("--requests", type=int, default=1024, show_default=True, help="Requests per policy and cell.")
@click.option(
    "--policies",
    type=_Listed(str),
    help="Policies: static-1, static-2, …, all, static (all fixed ones), alert-any, anytime, anytime-early-stop, "
    "anytime-drop. [default: all but the last]",
)
@click.option(
    "--seeds", type=_Listed(int), default="0", show_default=True, help="Random seeds for arrivals, images and order."
)
@click.option(
    "--load", type=float, help="Requests that arrive while the full model runs once. [default: the pattern's]"
)
@click.option("--hogs", type=int, help="Number of competing processes. [default: number of cores - 1]")
@click.option(
    "--square-period-s", type=float, default=0.2, show_default=True, help="Period of --interference square, in seconds."
)
@click.option("--quota", type=float, default=0.5, show_default=True, help="CPU share for quota and throttle.")
@click.option(
    "--throttle-period-s",
    type=float,
    default=120.0,
    show_default=True,
    help="Period of --interference throttle, in seconds.",
)
@click.option("--block", type=int, default=64, show_default=True, help="Requests per turn of a policy.")
@click.option("--dataset", type=DATASET, help="Data set. [default: the one named like the bundle]")
@data_dir_option
@click.option(
    "--limit", type=click.IntRange(min=1), default=2000, show_default=True, help="Use at most this many images."
)
@engine_option
@threads_option
@click.option(
    "--profile", type=click.Path(path_type=Path), help="The device.json of this device, from 'paraedge profile'."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File for the records; an interrupted run continues from it. [default: NAME-bench.jsonl]",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Write accuracy and misses to this PNG file.")
@trusted_keys_option
@json_option
def bench(
    bundle: Path | None,
    deadlines: tuple[float, ...],
    arrivals: tuple[str, ...],
    interference: tuple[str, ...],
    requests: int,
    policies: tuple[str, ...] | None,
    seeds: tuple[int, ...],
    load: float | None,
    hogs: int | None,
    square_period_s: float,
    quota: float,
    throttle_period_s: float,
    block: int,
    dataset: str | None,
    data_dir: Path | None,
    limit: int,
    engine: str | None,
    threads: int | None,
    profile: Path | None,
    out: Path | None,
    plot: Path | None,
    trusted_keys: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Benchmark how well deadlines are kept.

    Runs every combination (cell) of deadline, arrival pattern and interference with several policies, and
    compares them with oracles. Results are appended to a file; run the same command again to continue. The
    alias 'benchmark' is the same command. Without BUNDLE, the packaged Fashion-MNIST model is exported
    first (needs torch).

    \b
    Example:
      paraedge bench fashion-mnist-linux-all.paraedge
      paraedge bench --deadlines 0.4,0.7 --arrivals closed,bursty --plot out.png
    """
    from paraedge.cli._chatter import captured_chatter
    from paraedge.data.bundles import inputs_at_hand
    from paraedge_measure.deadlines.cells import grid
    from paraedge_measure.deadlines.interference import open_interference, throttle_means
    from paraedge_measure.deadlines.policies import DROP, EARLY_STOP, policy_names, select_policies
    from paraedge_measure.deadlines.records import RecordFile
    from paraedge_measure.deadlines.runner import Bench
    from paraedge_measure.device import read_device
    from paraedge_measure.plots.figures import check_plot
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.cores import available_cores
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.trial import try_bundle

    cells = grid(
        deadlines=deadlines,
        arrivals=arrivals,
        interference=interference,
        requests=requests,
        load=load,
        hogs=max(1, available_cores() - 1) if hogs is None else hogs,
        square_period_s=square_period_s,
        quota=quota,
        throttle_period_s=throttle_period_s,
    )
    if not seeds or min(seeds) < 0:
        raise InputError(f"seeds must be integers of at least 0, got {list(seeds)}")
    if plot is not None:
        check_plot(plot)
    known = None if profile is None else read_device(profile)
    opened = Bundle.open(packaged_bundle(engine) if bundle is None else bundle, trusted_keys=trusted_keys)
    need_classifier(opened, "paraedge profile", "measures its times")
    count = len(opened.manifest.branches)
    usual = (name for name in policy_names(count) if name != DROP)
    chosen = select_policies(usual if policies is None else policies, count)
    for cell in cells:  # what is not allowed here is found out before an hour is spent
        with open_interference(cell.interference, cell.interference_settings):
            pass
    images, source = inputs_at_hand(opened, dataset, data_dir, limit)

    with progress_bar() as bar:
        task = bar.add_task("running every image once", total=len(images))
        try_bundle(opened, engine=engine)
        with captured_chatter():  # engines introduce themselves
            made = Bench(
                opened,
                images.inputs,
                images.labels,
                source=source,
                engine=engine,
                threads=threads,
                profile=known,
                block=block,
                on_progress=lambda done: bar.advance(task, done),
            )
    with made as measured:
        notes = []
        if "throttle" in interference:
            notes.append(f"throttle lowers {throttle_means()}")
        if EARLY_STOP in chosen:
            try:
                measured.check(EARLY_STOP)
            except InputError as error:
                if policies is not None:
                    raise
                chosen = tuple(name for name in chosen if name != EARLY_STOP)
                notes.append(f"without {EARLY_STOP}: {error}")
        path = out or Path(f"{opened.manifest.name}-bench.jsonl")
        file = RecordFile(path, measured.header)
        notes += [file.note] if file.note else []
        _measure(measured, file, path, cells, chosen, seeds, notes)
        wanted = set(cells)
        records = [record for record in file.records if record.cell in wanted and record.seed in seeds]
        _report(measured, records, notes, path, plot, as_json)


def _measure(
    measured: Bench,
    file: RecordFile,
    path: Path,
    cells: Sequence[Cell],
    chosen: tuple[str, ...],
    seeds: tuple[int, ...],
    notes: list[str],
) -> None:
    """Every cell that is not in the file yet; each is on disk when it is done."""
    from paraedge_measure.deadlines.runner import ORACLES

    done = {record.key for record in file.records}
    work = []  # cell, seed, policies still to be measured, whether the oracles are
    for cell in cells:
        for seed in seeds:
            missing = tuple(name for name in chosen if (cell, name, seed) not in done)
            oracles = any((cell, name, seed) not in done for name in ORACLES)
            if missing or oracles:
                work.append((cell, seed, missing, oracles))
    before = len(cells) * len(seeds) - len(work)
    if before:
        notes.append(f"{before} of {len(cells) * len(seeds)} cells were measured before; delete {path} to begin anew")
    if not work:
        return
    turns = [len(missing) + oracles for _, _, missing, oracles in work]
    expected_s = sum(measured.expected_s(cell, count) for (cell, *_), count in zip(work, turns, strict=True))
    with progress_bar() as bar:
        print_progress(
            f"{len(work)} cells, {len(chosen)} policies and the oracles: about {_duration(expected_s)}; "
            f"the full model takes {1e3 * measured.full_s:.2f} ms",
        )
        total = sum(cell.requests * count for (cell, *_), count in zip(work, turns, strict=True))
        task = bar.add_task("", total=total)
        for cell, seed, missing, oracles in work:
            bar.update(task, description=cell.label)
            try:
                records = measured.run_cell(
                    cell, missing, seed, oracles=oracles, on_progress=lambda count: bar.advance(task, count)
                )
            except KeyboardInterrupt:
                print_progress(f"what is done is in {path}; the same command goes on with it")
                raise
            # Oracles are replayed together: those that are there already stay.
            file.append([record for record in records if record.key not in done])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _report(
    measured: Bench, records: list[Record], notes: list[str], path: Path, plot: Path | None, as_json: bool
) -> None:
    from paraedge_measure.deadlines.summary import by_cell, summarise

    grouped = by_cell(records)
    block = measured.header.block
    with working("comparing"):
        summaries = [summarise(cell, policies, block) for cell, policies in grouped.items()]
        if plot is not None:
            from paraedge_measure.plots.deadlines import plot_deadlines

            plot_deadlines(grouped, plot, title=f"{measured.header.bundle}, {measured.header.engine}")
    if as_json:
        print_json(_document(measured, records, summaries, notes, path, plot))
        return
    header = measured.header
    console().print(f"{header.bundle} on {header.engine}, {header.threads} thread(s), {header.cores} core(s)")
    console().print(f"{header.images}; 1, 2, … branches: {_percents(header.prefix_accuracy)} %")
    for summary in summaries:
        console().print()
        _print_cell(summary, grouped[summary.cell])
        console().print(_comparison_text(summary))
    console().print()
    for note in notes:
        console().print(note)
    console().print(f"records: {path}")
    if plot is not None:
        console().print(f"plot: {plot}")


def _percents(values: Sequence[float]) -> str:
    return " ".join(f"{100 * value:.2f}" for value in values)


def _print_cell(summary: CellSummary, policies: dict[str, list[Record]]) -> None:
    """What came out in time, then the times: one table of both needs more than 80 columns."""
    from paraedge_measure.deadlines.summary import pool

    cell = summary.cell
    records = next(iter(policies.values()))
    console().print(
        f"{cell.label} ({records[0].deadline_ms:.2f} ms), {cell.requests} requests × {len(records)} seed(s)"
    )
    rows = table("policy", ">accuracy", ">missed", ">at most", ">branches", ">CPU ms")
    times = table("policy", ">p50 ms", ">p99.9 ms", ">late p50", ">late p90", ">late p99.9")
    for name, of_policy in policies.items():
        pooled = pool(of_policy)
        latency, late = pooled.latency_ms, pooled.overshoot_ms
        rows.add_row(
            f"{name} (best static)" if name == summary.best_static else name,
            as_percent(pooled.accuracy),
            as_percent(pooled.miss_rate),
            as_percent(pooled.miss_interval[1]),
            _number(pooled.branches, 2),
            _number(pooled.cpu_ms, 3),
        )
        if latency:
            numbers = [latency.get(key) for key in ("p50", "p99.9")] + [
                late.get(key) for key in ("p50", "p90", "p99.9")
            ]
            times.add_row(name, *(_number(number, 2) for number in numbers))
    console().print(rows)
    console().print()
    console().print(times)
    console().print()


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _comparison_text(summary: CellSummary) -> str:
    lines = []
    for entry in summary.comparisons:
        apart = "" if entry.in_turns else "  (not measured in turns)"
        interval = "too few blocks for an interval"
        if entry.interval is not None:
            interval = "[{:+.2f}, {:+.2f}]".format(*(100 * end for end in entry.interval))
        lines.append(f"{entry.policy} − {entry.against}: {100 * entry.difference:+.2f} points {interval}{apart}")
    if summary.fits is not None:
        missed = ", ".join(
            f"{name} {as_percent(value)}"
            for name, value in summary.misses_where_it_fits.items()
            if not name.startswith(("static", "oracle"))
        )
        lines.append(f"one branch alone fits {as_percent(summary.fits)} of the requests; of those missed: {missed}")
    for name, value in summary.gap_closed.items():
        lines.append(f"{name} closes {100 * value:.0f} % of the gap between the oracles")
    for name, value in summary.cpu_of_all.items():
        if name.startswith("anytime"):
            lines.append(f"{name} takes {100 * value:.0f} % of the CPU time of all")
    return "\n".join(lines)


def _document(
    measured: Bench,
    records: list[Record],
    summaries: list[CellSummary],
    notes: list[str],
    path: Path,
    plot: Path | None,
) -> dict[str, Any]:
    import msgspec

    from paraedge_measure.deadlines.statistics import wilson_interval

    documents = []
    for record in records:
        document = msgspec.to_builtins(record)
        del document["missed_bits"], document["correct_bits"]
        low, high = wilson_interval(record.misses, record.requests)
        documents.append(
            {
                **document,
                "accuracy": record.correct / record.requests,
                "miss_rate": record.misses / record.requests,
                "miss_rate_interval": [low, high],
            }
        )
    return {
        **msgspec.to_builtins(measured.header),
        "full_ms": 1e3 * measured.full_s,
        "out": str(path),
        "plot": None if plot is None else str(plot),
        "notes": notes,
        "records": documents,
        "cells": [msgspec.to_builtins(summary) for summary in summaries],
    }
