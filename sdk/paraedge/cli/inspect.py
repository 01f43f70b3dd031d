"""``paraedge inspect``: what a bundle holds."""

from __future__ import annotations

import json
from pathlib import Path

import click

from paraedge.cli.options import trusted_keys_option
from paraedge.cli.output import json_option, print_json
from paraedge.cli.summary import bundle_document, print_bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@trusted_keys_option
@json_option
@click.option("--sbom", "as_sbom", is_flag=True, help="Print a software bill of materials: CycloneDX 1.6, JSON.")
def inspect(bundle: Path, trusted_keys: tuple[str, ...] | None, as_json: bool, as_sbom: bool) -> None:
    """Show what a bundle contains.

    Lists parts, sizes, costs and the accuracy of every prefix. Sizes and hashes of all files are checked
    first.

    \b
    Example:
      paraedge inspect fashion-mnist-android-2.paraedge
    """
    if as_json and as_sbom:
        raise click.UsageError("use --json or --sbom, not both")
    from paraedge_runtime.bundle import Bundle

    opened = Bundle.open(bundle, trusted_keys=trusted_keys)
    if as_sbom:
        from paraedge.sbom import bundle_sbom

        print_json(json.loads(bundle_sbom(opened)))
    elif as_json:
        print_json(bundle_document(opened))
    else:
        print_bundle(opened)
