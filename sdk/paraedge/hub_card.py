"""Model cards: ``README.md`` of a repository on a hub, made from a bundle's ``card.json`` or a checkpoint's records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.manifest import ImageInput, LabelsOutput

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from paraedge.model.checkpoint import Checkpoint

__all__ = ["bundle_readme", "checkpoint_readme"]

# Licence texts of ours -> the hub's identifiers; all others are "other" there.
_LICENSES = {
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
    "BSD-3-Clause": "bsd-3-clause",
    "CC0-1.0": "cc0-1.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC-BY-4.0": "cc-by-4.0",
}
_LABELS_SHOWN = 50


def bundle_readme(bundle: Bundle, repo_id: str) -> str:
    """The model card of a bundle, front matter and text."""
    manifest, card = bundle.manifest, bundle.card
    labels = manifest.output.labels if isinstance(manifest.output, LabelsOutput) else ()
    accuracy = () if card.accuracy is None else card.accuracy.prefix_accuracy
    dataset = "" if card.accuracy is None else card.accuracy.dataset
    kind = "image-classification" if labels and isinstance(manifest.input, ImageInput) else None
    shape = "×".join(map(str, manifest.input.shape))
    parts = [f"| `{name}` | {entry.size_bytes:,} | {entry.macs:,} |" for name, entry in manifest.parts().items()]
    lines = [
        f"A [paraedge](https://pypi.org/project/paraedge/) bundle for `{manifest.engine}`: {len(manifest.branches)} "
        f"branches, input {shape}, {bundle.size_bytes:,} bytes. Every prefix of the branches is a working model.",
        "",
        "```sh",
        "pip install 'paraedge[all,hub]'",
        f"paraedge pull {repo_id} --out {manifest.name}.paraedge",
        f"paraedge run {manifest.name}.paraedge image.png",
        "```",
        "",
        "| part | bytes | multiply-adds |",
        "|---|---|---|",
        *parts,
    ]
    tags = [f"paraedge-{manifest.engine}"]
    return _readme(repo_id, manifest.name, card.description, card.license, kind, tags, dataset, accuracy, labels, lines)


def checkpoint_readme(checkpoint: Checkpoint, repo_id: str) -> str:
    """The model card of a checkpoint folder, front matter and text."""
    config, training = checkpoint.config, checkpoint.training
    shape = config.model
    lines = [
        f"A ParaFormer trained with [paraedge](https://pypi.org/project/paraedge/): {shape.num_branches} branches, "
        f"images of {shape.image_size}×{shape.image_size}×{shape.in_channels}. Every prefix of the branches is a "
        "working model.",
        "",
        "```sh",
        "pip install 'paraedge[all,hub]'",
        f"paraedge pull {repo_id} --out {config.name}",
        f"paraedge export --model {config.name} --target linux",
        "```",
        "",
        f"{training.epochs} epochs, seed {training.seed}, {training.train_seconds:.0f} s on {training.hardware}.",
    ]
    return _readme(
        repo_id,
        config.name,
        config.description,
        config.license,
        "image-classification",
        [],
        config.dataset,
        training.prefix_accuracy,
        config.labels,
        lines,
    )


def _readme(
    repo_id: str,
    name: str,
    description: str,
    license_text: str,
    kind: str | None,
    tags: list[str],
    dataset: str,
    accuracy: tuple[float, ...],
    labels: tuple[str, ...],
    lines: list[str],
) -> str:
    from huggingface_hub import ModelCardData

    known = _LICENSES.get(license_text)
    data = ModelCardData(
        license=known or "other",
        license_name=None if known else license_text,
        library_name="paraedge",
        pipeline_tag=kind,
        tags=["paraedge", "paraformer", "edge", *tags],
        model_name=name,
        metrics=["accuracy"] if accuracy else None,
        eval_results=[_result(dataset, count, value) for count, value in enumerate(accuracy, start=1)] or None,
    )
    shown = ", ".join(labels[:_LABELS_SHOWN]) + (", …" if len(labels) > _LABELS_SHOWN else "")
    rows = [f"| {count} | {100 * value:.2f} % |" for count, value in enumerate(accuracy, start=1)]
    text = [f"# {name}", "", f"{description}.".replace("..", "."), "", *lines, ""]
    if rows:
        text += [f"| first branches | accuracy on {dataset} |", "|---|---|", *rows, ""]
    if shown:
        text += [f"Labels: {shown}.", ""]
    text += [f"Licence: {license_text}."]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(text) + "\n"


def _result(dataset: str, count: int, value: float) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="image-classification",
        dataset_type=dataset,
        dataset_name=dataset,
        metric_type="accuracy",
        metric_name=f"accuracy of the first {count} branch{'es' if count > 1 else ''}",
        metric_value=round(value, 6),
    )
