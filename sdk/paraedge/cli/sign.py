"""``paraedge sign``: a bundle that devices with trusted keys open."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from paraedge.cli.output import console, json_option, print_json
from paraedge_runtime._console import printable


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Private key from 'paraedge keygen' or minisign. May be repeated; a device needs to trust one of them.",
)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Day (UTC) from which devices with trusted keys reject the bundle. [default: never]",
)
@json_option
def sign(bundle: Path, keys: tuple[Path, ...], expires: datetime | None, as_json: bool) -> None:
    """Sign a bundle.

    Signs BUNDLE (a folder or a zip) in place and replaces its signatures. All files are checked first. The
    signature covers manifest.json, which contains the hash of every other file.

    \b
    Example:
      paraedge sign pi.paraedge --key release.key
      paraedge verify pi.paraedge --key release.pub
    """
    from paraedge.signing import read_private_key, sign_bundle

    def ask(path: Path) -> str:
        password: str = click.prompt(f"Password for {printable(str(path))}", hide_input=True, err=True)
        return password

    private = [read_private_key(path, lambda path=path: ask(path)) for path in keys]  # type: ignore[misc]
    ends = None if expires is None else expires.replace(tzinfo=UTC)
    signed = sign_bundle(bundle, private, ends)
    names = [key.public.name for key in private]
    if as_json:
        print_json(
            {
                "path": str(bundle),
                "sha256": signed.sha256,
                "signed_by": names,
                "expires": None if ends is None else ends.isoformat(),
            }
        )
    else:
        until = "" if ends is None else f", until {ends:%Y-%m-%d}"
        console().print(f"{bundle}: signed by {', '.join(names)}{until}")
