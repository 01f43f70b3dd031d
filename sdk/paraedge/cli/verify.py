"""``paraedge verify``: a bundle's files, then its predictions on this device."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from paraedge.cli.output import console, json_option, print_json, table, working
from paraedge.cli.summary import nearness_text, snr_text


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--engine", help="Another engine that can run the same files. [default: the bundle's]")
@click.option("--threads", type=int, help="Threads that run branches. [default: one per branch, up to the cores]")
@json_option
def verify(bundle: Path, engine: str | None, threads: int | None, as_json: bool) -> None:
    """Check a bundle's files, then its predictions on this device.

    Sizes and hashes first; then the golden inputs run through the engine, and every branch must be
    as near to torch here as the bundle's quantization recipe asks for.

    \b
    Example:
      paraedge verify fashion-mnist-raspberry-pi-all.paraedge
    """
    import msgspec

    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.verification import verify_bundle

    opened = Bundle.open(bundle)
    with working("running the golden inputs"):
        report = verify_bundle(opened, engine=engine, threads=threads)
    if as_json:
        document = {
            "path": str(bundle),
            "passed": not report.problems,
            **{key: value for key, value in asdict(report).items() if key not in ("branches", "prefixes")},
            "branches": {str(index): msgspec.to_builtins(value) for index, value in report.branches.items()},
            "prefixes": [msgspec.to_builtins(value) for value in report.prefixes],
        }
        print_json(document)
    else:
        count = len(opened.manifest.entries()) + 1
        console().print(f"{bundle}: {count} files, sizes and hashes as listed")
        console().print(f"{report.num_samples} golden inputs through {report.engine}\n")
        last = ">same label" if opened.manifest.labels else ">relative error"
        rows = table("branch", ">against torch", ">largest error", ">sum so far", last)
        for (index, branch), prefix in zip(report.branches.items(), report.prefixes, strict=True):
            rows.add_row(
                str(index),
                snr_text(branch.snr_db),
                f"{branch.max_abs_error:.1e}",
                snr_text(prefix.snr_db),
                nearness_text(prefix),
            )
        console().print(rows)
        console().print()
        for problem in report.problems:
            console().print(problem, style="red")
        verdict, style = ("NOT verified", "red") if report.problems else ("verified", "green")
        console().print(verdict, style=style)
    if report.problems:
        sys.exit(1)
