"""``paraedge targets``: what can be exported to."""

from __future__ import annotations

import click

from paraedge.cli.output import console, json_option, print_json, table


@click.command()
@json_option
def targets(as_json: bool) -> None:
    """List the kinds of device to export to.

    Shows the engine of each target, and its recipe for 'paraedge export --quantize small': the smallest
    that kept the accuracy of the packaged models.

    \b
    Example:
      paraedge targets
    """
    from paraedge_converters.targets import TARGETS

    if as_json:
        print_json(
            {
                name: {
                    "engine": target.engine,
                    "recipe": target.recipe,
                    "description": target.description,
                    "tested": target.tested,
                }
                for name, target in TARGETS.items()
            }
        )
        return
    rows = table("target", "engine", "small recipe", "~device; tested here")
    for name, target in TARGETS.items():
        rows.add_row(name, target.engine, target.recipe, f"{target.description}; {target.tested}")
    console().print(rows)
