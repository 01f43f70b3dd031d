"""``paraedge push``: a model or a bundle onto a hub."""

from __future__ import annotations

import click

from paraedge.cli.output import echo, json_option, print_json


@click.command()
@click.argument("source")
@click.argument("repository")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@json_option
def push(source: str, repository: str, private: bool, as_json: bool) -> None:
    """Upload a model or a bundle to a hub.

    SOURCE is a bundle, a checkpoint folder or a packaged model, REPOSITORY is user/name on
    huggingface.co, or on the hub that HF_ENDPOINT names. The model card is generated from the bundle or the
    checkpoint. Log in with 'hf auth login', or set HF_TOKEN.

    \b
    Example:
      paraedge push my-model ada/my-model
      paraedge push my-model-linux-all.paraedge ada/my-bundle --private
    """
    from paraedge.hub import push as run_push

    address = run_push(source, repository, private=private)
    if as_json:
        print_json({"address": address})
    else:
        echo(address)
