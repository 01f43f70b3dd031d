"""``paraedge web``: a page that runs bundles in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.options import trusted_keys_option
from paraedge.cli.output import echo, json_option, print_json, print_next, size_text, working


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True)
@trusted_keys_option
@json_option
def web(out: Path, bundles: tuple[Path, ...], trusted_keys: tuple[str, ...] | None, as_json: bool) -> None:
    """Create a web page that runs bundles in a browser.

    The folder OUT contains the page, the runtime, the bundles and their engines; any static file server
    can serve it. A phone needs https for its camera, its microphone and offline use; a browser on the same
    machine does not. The engines are downloaded from npm, once.

    \b
    Example:
      paraedge export --target web --quantize small --out fashion.paraedge
      paraedge web site fashion.paraedge
      python3 -m http.server --directory site --bind 127.0.0.1
    """
    from paraedge.web import make_site

    with working("making the page"):
        folder = make_site(out, bundles, trusted_keys=trusted_keys)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size_bytes = sum(path.stat().st_size for path in files)
    if as_json:
        print_json({"path": str(folder), "files": len(files), "size_bytes": size_bytes})
        return
    echo(f"{folder}  {len(files)} files, {size_text(size_bytes)}")
    print_next("python3", "-m", "http.server", "--directory", folder, "--bind", "127.0.0.1")
