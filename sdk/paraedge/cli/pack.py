"""``paraedge pack``: one file of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli._signed import telling_of_lost_signature
from paraedge.cli.options import beside, trusted_keys_option
from paraedge.cli.output import echo, json_option, print_json, size_text


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write. [default: BUNDLE.zip]")
@trusted_keys_option
@json_option
def pack(bundle: Path, out: Path | None, trusted_keys: tuple[str, ...] | None, as_json: bool) -> None:
    """Pack a bundle into a single zip file.

    The zip is not compressed. Every command accepts it in place of the folder.

    \b
    Example:
      paraedge pack fashion-mnist-android-2.paraedge
      paraedge run fashion-mnist-android-2.paraedge.zip
    """
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.errors import InputError

    opened = Bundle.open(bundle, trusted_keys=trusted_keys)
    if out is None and not bundle.is_dir():
        raise InputError(f"{bundle} is one file already; to copy it, name the copy with --out")
    path = out if out is not None else beside(bundle, ".zip")
    with telling_of_lost_signature(path):
        opened.pack(path)
    size_bytes = Bundle.open(path, trusted_keys=trusted_keys).path.stat().st_size
    if as_json:
        print_json({"path": str(path), "size_bytes": size_bytes})
    else:
        echo(f"{path}  {size_text(size_bytes)}")
