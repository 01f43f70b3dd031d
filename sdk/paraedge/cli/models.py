"""``paraedge models``: the models that ship with paraedge."""

from __future__ import annotations

from typing import Any

import click

from paraedge.cli.output import console, json_option, print_json, size_text, table


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the packaged models.

    Shows the test accuracy with 1, 2, 4 and all branches.

    \b
    Example:
      paraedge models
      paraedge export --model cifar10 --target android --branches 2
    """
    from paraedge.model.records import CheckpointConfig, TrainingRecord, read_json
    from paraedge.packaged import DEFAULT_MODEL, PACKAGED_MODELS, resolve_checkpoint

    documents: list[dict[str, Any]] = []
    for name in PACKAGED_MODELS:
        folder = resolve_checkpoint(name)
        config = read_json(folder / "config.json", CheckpointConfig)
        training = read_json(folder / "training.json", TrainingRecord)
        documents.append(
            {
                "name": name,
                "default": name == DEFAULT_MODEL,
                "description": config.description,
                "license": config.license,
                "dataset": config.dataset,
                "labels": list(config.labels),
                "image_shape": list(config.model.sample_shape),
                "num_branches": config.model.num_branches,
                "weights_bytes": (folder / "model.safetensors").stat().st_size,
                "prefix_accuracy": list(training.prefix_accuracy),
                "path": str(folder),
            }
        )
    if as_json:
        print_json(documents)
        return
    rows = table("model", "images", ">weights", ">branches", *(f">{count}" for count in ("1", "2", "4", "all, %")))
    for document in documents:
        accuracy, name = document["prefix_accuracy"], document["name"]
        rows.add_row(
            name if name == document["dataset"] else f"{name} ({document['dataset']})",
            "×".join(map(str, document["image_shape"])),
            size_text(document["weights_bytes"]),
            str(document["num_branches"]),
            *(f"{100 * accuracy[min(count, len(accuracy)) - 1]:.2f}" for count in (1, 2, 4, len(accuracy))),
        )
    console().print(rows)
    console().print(f"\ndefault: {DEFAULT_MODEL}; accuracy of 1, 2, 4 and all branches on the data set's test split")
