"""``paraedge update``: what changed from one bundle to another, as one file."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.options import beside, trusted_keys_option
from paraedge.cli.output import echo, json_option, print_json, size_text


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write. [default: NEW.update.zip]")
@trusted_keys_option
@json_option
def update(old: Path, new: Path, out: Path | None, trusted_keys: tuple[str, ...] | None, as_json: bool) -> None:
    """Create an update (delta) between two bundles.

    The update contains NEW's manifest and the files that OLD lacks. On the device, 'paraedge apply' turns
    OLD into NEW.

    \b
    Example:
      paraedge update old.paraedge bigger.paraedge --out new-parts.zip
      paraedge apply new-parts.zip old.paraedge --out bigger.paraedge
    """
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.update import write_update

    before, after = (Bundle.open(bundle, trusted_keys=trusted_keys) for bundle in (old, new))
    path = out if out is not None else beside(new, ".update.zip")
    changed, whole = write_update(before, after, path), after.size_bytes
    size_bytes = path.stat().st_size
    if as_json:
        print_json({"path": str(path), "size_bytes": size_bytes, "bundle_bytes": whole, "files": changed})
    else:
        echo(f"{path}  {size_text(size_bytes)} of {size_text(whole)}: {', '.join(changed)}")
