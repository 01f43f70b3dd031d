"""``paraedge inspect``: what a bundle holds."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.output import json_option, print_json
from paraedge.cli.summary import bundle_document, print_bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a bundle contains.

    Lists parts, sizes, costs and the accuracy of every prefix. Sizes and hashes of all files are checked
    first.

    \b
    Example:
      paraedge inspect fashion-mnist-android-2.paraedge
    """
    from paraedge_runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    if as_json:
        print_json(bundle_document(opened))
    else:
        print_bundle(opened)
