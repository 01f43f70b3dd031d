"""``paraedge inspect``: what a bundle holds."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.options import trusted_keys_option
from paraedge.cli.output import json_option, print_json
from paraedge.cli.summary import bundle_document, print_bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@trusted_keys_option
@json_option
def inspect(bundle: Path, trusted_keys: tuple[str, ...] | None, as_json: bool) -> None:
    """Show what a bundle holds.

    Parts, sizes, costs, and the accuracy of every prefix. All files are checked against their sizes and hashes first.

    \b
    Example:
      paraedge inspect fashion-mnist-android-2.paraedge
    """
    from paraedge_runtime.bundle import Bundle

    opened = Bundle.open(bundle, trusted_keys=trusted_keys)
    if as_json:
        print_json(bundle_document(opened))
    else:
        print_bundle(opened)
