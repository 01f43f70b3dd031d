"""``paraedge verify``: a bundle's files, then its predictions on this device."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paraedge.cli._devices import outputs_on, profile_option
from paraedge.cli.options import engine_option, threads_option, trusted_keys_option
from paraedge.cli.output import console, json_option, print_json, table, working
from paraedge.cli.summary import nearness_text, snr_text

if TYPE_CHECKING:
    from paraedge_runtime.bundle import Bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@engine_option
@threads_option
@profile_option
@trusted_keys_option
@json_option
def verify(
    bundle: Path,
    engine: str | None,
    threads: int | None,
    profile: Path | None,
    trusted_keys: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Check a bundle's files and its predictions on this device.

    Checks the signature, sizes and hashes. Then runs the golden inputs and compares every branch with
    torch's output, within the tolerance of the bundle's quantization recipe. Exits with status 1 if they
    differ.

    \b
    Example:
      paraedge verify fashion-mnist-raspberry-pi-all.paraedge
      paraedge verify pi.paraedge --key release.pub
      paraedge verify fashion-mnist-android-all.paraedge --profile phone.json
    """
    import msgspec

    from paraedge_runtime.bundle import Bundle, listed_names
    from paraedge_runtime.verification import compare_golden, verify_bundle

    if profile is not None and (engine is not None or threads is not None):
        raise click.UsageError("--engine and --threads are for this machine; --profile names another one")
    opened = Bundle.open(bundle, trusted_keys=trusted_keys)
    if profile is None:
        with working("running the golden inputs"):
            report = verify_bundle(opened, engine=engine, threads=threads)
    else:
        outputs, where = outputs_on(profile, opened, opened.golden().inputs)
        report = compare_golden(opened, outputs, engine=where)
    if as_json:
        document = {
            "path": str(bundle),
            "passed": not report.problems,
            "signed_by": opened.signed_by,
            **{key: value for key, value in asdict(report).items() if key not in ("branches", "prefixes")},
            "branches": {str(index): msgspec.to_builtins(value) for index, value in report.branches.items()},
            "prefixes": [msgspec.to_builtins(value) for value in report.prefixes],
        }
        print_json(document)
    else:
        count = len(listed_names(opened.manifest))
        console().print(f"{bundle}: {count} files, sizes and hashes as listed")
        console().print(_signature_text(opened))
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


def _signature_text(bundle: Bundle) -> str:
    from paraedge_runtime.signature import claimed_signers

    if bundle.signed_by is not None:
        return f"signed by key {bundle.signed_by}"
    if bundle.signature_bytes is None:
        return "not signed"
    signers = claimed_signers(bundle.path, bundle.signature_bytes)
    return f"signed by key {signers}, not checked: no trusted key was given (--key)"
