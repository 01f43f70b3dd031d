"""``paraedge apply``: a new bundle from an old one and an update."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli._signed import telling_of_lost_signature
from paraedge.cli.options import trusted_keys_option
from paraedge.cli.output import json_option, print_json
from paraedge.cli.summary import bundle_document, print_bundle


@click.command()
@click.argument("update", type=click.Path(path_type=Path))
@click.argument("old", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Bundle to write; may be OLD.")
@click.option("--allow-downgrade", is_flag=True, help="Accept an update to a lower model version.")
@trusted_keys_option
@json_option
def apply(
    update: Path,
    old: Path,
    out: Path,
    allow_downgrade: bool,
    trusted_keys: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Apply an update to a bundle.

    UPDATE was created with 'paraedge update OLD NEW' and applies to that OLD only. Every file of the
    result is checked. Needs neither torch nor an engine. With trusted keys, both bundles must be signed.

    \b
    Example:
      paraedge apply new-parts.zip old.paraedge --out bigger.paraedge
    """
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.update import apply_update

    opened = Bundle.open(old, trusted_keys=trusted_keys)
    with telling_of_lost_signature(out):
        bundle = apply_update(opened, update, out, allow_downgrade=allow_downgrade, trusted_keys=trusted_keys)
    if as_json:
        print_json(bundle_document(bundle))
    else:
        print_bundle(bundle)
