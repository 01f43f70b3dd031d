"""``paraedge pack``: one file of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.output import json_option, print_json, size_text


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write. [default: BUNDLE.zip]")
@json_option
def pack(bundle: Path, out: Path | None, as_json: bool) -> None:
    """Pack a bundle into a single zip file.

    The zip is not compressed. Every command accepts it in place of the folder.

    \b
    Example:
      paraedge pack fashion-mnist-android-2.paraedge
      paraedge run fashion-mnist-android-2.paraedge.zip
    """
    from paraedge_runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    path = out if out is not None else bundle.with_name(bundle.name + ".zip")
    opened.pack(path)
    size_bytes = Bundle.open(path).path.stat().st_size
    if as_json:
        print_json({"path": str(path), "size_bytes": size_bytes})
    else:
        click.echo(f"{path}  {size_text(size_bytes)}")
