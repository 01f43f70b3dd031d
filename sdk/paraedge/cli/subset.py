"""``paraedge subset``: a smaller bundle from a bundle, without torch."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli._signed import telling_of_lost_signature
from paraedge.cli.options import BRANCHES, Branches, trusted_keys_option
from paraedge.cli.output import json_option, print_json
from paraedge.cli.summary import bundle_document, print_bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--branches", type=BRANCHES, required=True, help="Branches to keep: a count (2) or indices (0,3,5).")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Bundle to write.")
@trusted_keys_option
@json_option
def subset(bundle: Path, branches: Branches, out: Path, trusted_keys: tuple[str, ...] | None, as_json: bool) -> None:
    """Create a smaller bundle with some of the branches.

    Copies files, so it needs neither torch nor an engine. The parts are the same bytes that exporting
    those branches would give.

    \b
    Example:
      paraedge subset all.paraedge --branches 2 --out small.paraedge
    """
    from paraedge_runtime._arguments import choose_branches
    from paraedge_runtime.bundle import Bundle

    opened = Bundle.open(bundle, trusted_keys=trusted_keys)
    with telling_of_lost_signature(out):
        smaller = opened.subset(choose_branches(branches, opened.manifest.branch_indexes), out)
    if as_json:
        print_json(bundle_document(smaller))
    else:
        print_bundle(smaller)
