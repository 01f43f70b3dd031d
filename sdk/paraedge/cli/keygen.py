"""``paraedge keygen``: a pair of keys that sign bundles and check them."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.output import console, json_option, print_json
from paraedge_runtime._console import printable


@click.command()
@click.argument("name", type=click.Path(path_type=Path))
@click.option("--no-password", is_flag=True, help="Do not encrypt NAME.key.")
@json_option
def keygen(name: Path, no_password: bool, as_json: bool) -> None:
    """Create a key pair for signing bundles.

    NAME.key is the private key for 'paraedge sign': keep it secret, and off devices. NAME.pub is the public
    key: a device that trusts it opens only bundles signed with NAME.key. Existing files are never
    overwritten. Both are minisign key files.

    \b
    Example:
      paraedge keygen release
      paraedge sign pi.paraedge --key release.key
      PARAEDGE_TRUSTED_KEYS=release.pub paraedge run pi.paraedge
    """
    from paraedge.signing import make_keys

    password = None
    if not no_password and name.name:
        password = click.prompt(
            f"Password for {printable(str(name))}.key", hide_input=True, confirmation_prompt=True, err=True
        )
    public = make_keys(name, password)
    if as_json:
        print_json({"key_id": public.name, "public_key": public.text, "files": [f"{name}.key", f"{name}.pub"]})
    else:
        console().print(f"{name}.key  signs; keep it secret")
        console().print(f"{name}.pub  checks; key {public.name}, {public.text}")
