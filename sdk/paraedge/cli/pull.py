"""``paraedge pull``: a model or a bundle from a hub."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.options import trusted_keys_option
from paraedge.cli.output import echo, json_option, print_json, progress_bar


@click.command()
@click.argument("repository")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write. [default: the repository's name, .paraedge]"
)
@click.option("--revision", help="Branch, tag or commit. [default: main]")
@trusted_keys_option
@json_option
def pull(
    repository: str, out: Path | None, revision: str | None, trusted_keys: tuple[str, ...] | None, as_json: bool
) -> None:
    """Download a model or a bundle from a hub.

    REPOSITORY is user/name on huggingface.co, or on the hub that HF_ENDPOINT names. Sizes, hashes and,
    with --key, the signature are checked before OUT is written.

    \b
    Example:
      paraedge pull ada/my-bundle --key release.pub
      paraedge run my-bundle.paraedge image.png
      paraedge pull ada/my-model
      paraedge export --model my-model --target linux
    """
    from paraedge.hub import pull as run_pull

    with progress_bar("{task.fields[file]}") as bar:
        task = bar.add_task(f"reading {repository}", total=None, file="")
        folder = run_pull(
            repository,
            out,
            revision=revision,
            trusted_keys=trusted_keys,
            on_progress=lambda name, num_bytes: bar.update(task, advance=num_bytes, file=name),
        )
    if as_json:
        print_json({"path": str(folder)})
    else:
        echo(str(folder))
