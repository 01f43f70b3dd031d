"""``paraedge plan``: which branches, engine and threads keep a budget on a device, from its profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from paraedge.cli.options import SIZE, trusted_keys_option
from paraedge.cli.output import (
    as_percent,
    console,
    indexes_text,
    json_option,
    print_json,
    print_next,
    size_text,
    table,
    working,
)
from paraedge.cli.packaged_bundle import packaged_bundle

if TYPE_CHECKING:
    from paraedge_measure.device import Device
    from paraedge_measure.evaluation import Evaluation
    from paraedge_runtime.bundle import Bundle


@click.command()
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path), metavar="[BUNDLES]...")
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    required=True,
    help="The device.json of the device, from 'paraedge profile'.",
)
@click.option("--budget-ms", type=float, required=True, help="Target p95 latency, in milliseconds.")
@click.option("--min-accuracy", type=float, help="Lowest accuracy to accept, such as 0.9.")
@click.option("--max-bytes", type=SIZE, help="Largest size to accept, such as 2MB.")
@click.option("--model", help="Checkpoint of the BUNDLES. [default: the packaged model they were exported from]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the choice to this file, for 'paraedge export --plan'."
)
@trusted_keys_option
@json_option
def plan(
    bundles: tuple[Path, ...],
    profile: Path,
    budget_ms: float,
    min_accuracy: float | None,
    max_bytes: int | None,
    model: str | None,
    out: Path | None,
    trusted_keys: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Choose branches, engine and threads for a budget.

    Lists the Pareto-optimal choices by latency, accuracy and size, and marks the most accurate one
    within the budget. BUNDLES must have all branches and be measured by 'paraedge profile'. Default: the
    packaged Fashion-MNIST model.

    A checkpoint contains the logits of its test set, from which the accuracy of any subset of branches
    follows. Subsets are chosen on one half of the images, and all accuracies are those of the other half.

    \b
    Example:
      paraedge plan --profile device.json --budget-ms 10 --out plan.json
      paraedge export --plan plan.json
    """
    import msgspec

    from paraedge.packaged import DEFAULT_MODEL, PACKAGED_MODELS
    from paraedge_measure.device import read_device
    from paraedge_measure.planning import Wish, candidate_plans, choose_plan, pareto_plans, write_plan
    from paraedge_runtime.bundle import Bundle

    wish = Wish(budget_ms=budget_ms, min_accuracy=min_accuracy, max_bytes=max_bytes)
    device = read_device(profile)
    opened = [Bundle.open(path, trusted_keys=trusted_keys) for path in bundles or _packaged(device)]
    evaluations = [_kept_evaluation(bundle, model) for bundle in opened]
    with working("choosing branches"):
        plans = [
            plan
            for bundle, evaluation in zip(opened, evaluations, strict=True)
            for plan in candidate_plans(device, bundle, evaluation)
        ]
    chosen = choose_plan(plans, wish)
    listed = pareto_plans(plans)
    if out is not None:
        write_plan(chosen, out)
    if as_json:
        print_json({"chosen": msgspec.to_builtins(chosen), "pareto": msgspec.to_builtins(listed)})
        return
    rows = table("branches", "~engine and recipe", ">threads", ">p95 ms", ">accuracy", ">size", ">memory")
    for one in sorted({*listed, chosen}, key=lambda one: one.p95_ms):
        rows.add_row(
            f"{'→' if one == chosen else ' '} {indexes_text(one.branches)}",
            f"{one.engine} {one.recipe}",
            str(one.threads),
            f"{one.p95_ms:.2f}",
            as_percent(one.accuracy),
            size_text(one.size_bytes),
            "unknown" if one.memory_bytes is None else size_text(one.memory_bytes),
        )
    console().print(rows)
    if not chosen.valid:
        console().print("\nmeasured while the device was slowed down or busy: profile it again", style="yellow")
    if any(evaluations):
        console().print("\nAccuracy is on the half of the test images that was not used to choose branches.")
    for bundle, kept in zip(opened, evaluations, strict=True):
        if kept is None:
            console().print(f"\n{bundle.path}: only its first branches were considered; {_why(bundle)}.")
    if out is not None:
        known = chosen.bundle_name if chosen.bundle_name in PACKAGED_MODELS else "CHECKPOINT"
        source = model or known
        named = () if source == DEFAULT_MODEL else ("--model", source)
        print_next("paraedge", "export", "--plan", out, *named)


def _why(bundle: Bundle) -> str:
    if bundle.manifest.quantization != "fp32":  # the logits that are kept are those in float32
        return f"the accuracy of other branches in {bundle.manifest.quantization} was not measured"
    return "--model CHECKPOINT considers others"


def _packaged(device: Device) -> list[Path]:
    """The packaged model's bundles, for the engines with which it was measured."""
    from paraedge.packaged import DEFAULT_MODEL
    from paraedge_runtime.errors import ProfileError

    engines = sorted({one.engine for one in device.measurements if one.bundle_name == DEFAULT_MODEL})
    if not engines:
        raise ProfileError(f"{DEFAULT_MODEL} was not measured on {device.name}; run 'paraedge profile' first")
    return [packaged_bundle(engine) for engine in engines]


def _kept_evaluation(bundle: Bundle, model: str | None) -> Evaluation | None:
    """The logits of the checkpoint a bundle came from; ``None`` when it is not known which that is."""
    from paraedge.model.arrays import read_evaluation
    from paraedge.model.records import CheckpointConfig, read_json
    from paraedge.packaged import packaged_folder, resolve_checkpoint
    from paraedge_measure.planning import belong_together

    folder = packaged_folder(bundle.manifest.name) if model is None else resolve_checkpoint(model)
    if folder is None:
        return None
    evaluation = read_evaluation(folder, read_json(folder / "config.json", CheckpointConfig).model)
    return evaluation if model is not None or belong_together(bundle, evaluation) else None
