"""``paraedge export``: from a trained model to a bundle for a device."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paraedge.cli.options import BRANCHES, Branches
from paraedge.cli.output import console, json_option, print_json, progress_bar, size_text, table
from paraedge.cli.summary import bundle_document, print_bundle

if TYPE_CHECKING:
    from paraedge.exporting import Trial


@click.command()
@click.option("--target", help="Kind of device; 'paraedge targets' lists them. Needed without --plan.")
@click.option("--branches", type=BRANCHES, default="all", help="2: the first two. 0,3,5: those. all. [default: all]")
@click.option("--plan", "plan_path", type=click.Path(path_type=Path), help="Target, engine, branches, recipe.")
@click.option("--model", default="fashion-mnist", show_default=True, help="A packaged model or a checkpoint folder.")
@click.option("--engine", help="executorch, litert or onnxruntime. [default: the target's]")
@click.option("--quantize", help="A recipe (docs/targets.md), small or auto. [default: fp32]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="The model's data set: measure the exported parts.")
@click.option("--out", type=click.Path(path_type=Path), help="Bundle folder. [default: MODEL-TARGET-BRANCHES.paraedge]")
@click.option("--fused", is_flag=True, help="Add the chosen branches as one ordinary model for other tools.")
@click.option("--allow-undelegated", is_flag=True, help="Accept operators outside the engine's fast backend.")
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 0.1, min_open=True),
    default=0.005,
    show_default=True,
    help="What early stop, and --quantize auto, may each cost; a fraction: 0.005 is half a point.",
)
@json_option
def export(
    target: str | None,
    branches: Branches,
    plan_path: Path | None,
    model: str,
    engine: str | None,
    quantize: str | None,
    data_dir: Path | None,
    out: Path | None,
    fused: bool,
    allow_undelegated: bool,
    max_accuracy_drop: float,
    as_json: bool,
) -> None:
    """Make a bundle for a device from some branches of a model.

    Every part is compared with torch on real images before the bundle is written. Lowered parts are
    kept in a cache, so another choice of branches of the same model takes seconds.

    --quantize small is the target's recipe in 'paraedge targets', which kept the accuracy of the packaged
    models. --quantize auto takes the smallest recipe that costs no prefix more than --max-accuracy-drop on
    the test set; it needs --data-dir or $PARAEDGE_DATA.

    \b
    Example:
      paraedge export --target android --branches 2
      paraedge export --target android --quantize small
      paraedge export --target raspberry-pi --model my-model --branches 0,3,5 --out small.paraedge
      paraedge export --plan plan.json
    """
    # Names first: loading torch takes seconds, saying that a target is unknown should not.
    from paraedge.model.records import CheckpointConfig, read_json
    from paraedge.packaged import resolve_checkpoint
    from paraedge_converters.recipes import recipe_for
    from paraedge_converters.targets import TARGETS, backend_for
    from paraedge_measure.planning import read_plan
    from paraedge_runtime.engines import engine_info
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.session import choose_branches

    config = read_json(resolve_checkpoint(model) / "config.json", CheckpointConfig)
    if plan_path is not None:
        if any(given is not None for given in (target, engine, branches, quantize)):
            raise click.UsageError(
                "--plan says target, engine, branches and recipe; leave --target, --engine, --branches, --quantize out"
            )
        plan = read_plan(plan_path)
        if plan.bundle_name != config.name:
            raise click.UsageError(f"{plan_path} is for {plan.bundle_name}, not {config.name}; name it with --model")
        target, engine, branches, quantize = plan.target, plan.engine, plan.branches, plan.recipe
    recipe_name = quantize or "fp32"
    if target is None:
        raise click.UsageError("Missing option '--target'; 'paraedge targets' lists them, and a --plan has one")
    engine_name, converter = backend_for(target, engine)
    engine_info(engine_name)
    if recipe_name == "small":
        recipe_name = TARGETS[target].recipe
    if recipe_name != "auto":
        recipe_for(recipe_name, converter)
    if fused and recipe_name != "fp32":
        raise InputError(f"a fused model is float32 only; leave out --fused or --quantize {recipe_name}")
    choose_branches(branches, tuple(range(config.model.num_branches)))

    with progress_bar("{task.fields[note]}") as bar:
        task = bar.add_task("loading torch", total=None, note="")
        from paraedge.data import FolderOptions, load_dataset
        from paraedge.exporting import Trial, export_smallest
        from paraedge.exporting import export as run_export
        from paraedge_converters.pipeline import ConversionProgress

        test_set = None
        if data_dir is not None or recipe_name == "auto":
            shape = config.model
            data = load_dataset(config.dataset, data_dir, FolderOptions(shape.image_size, shape.in_channels))
            test_set = data.test
        cached, trials = 0, list[Trial]()

        def show(recipe: str, progress: ConversionProgress) -> None:
            nonlocal cached
            cached += progress.cached
            what = {"parity": "checking against torch", "test set": "running the test set"}
            note = f"{cached} part(s) from the cache" if cached else ""
            bar.update(
                task,
                description=f"{recipe}: {what.get(progress.what, f'lowered {progress.what}')}",
                total=progress.total,
                completed=progress.step,
                note=note,
            )

        bar.update(task, description="lowering stem")
        if recipe_name == "auto":
            assert test_set is not None
            bundle, trials = export_smallest(
                model,
                target=target,
                test_set=test_set,
                branches=branches,
                engine=engine,
                out=out,
                allow_undelegated=allow_undelegated,
                max_accuracy_drop=max_accuracy_drop,
                on_progress=show,
            )
        else:
            bundle = run_export(
                model,
                target=target,
                branches=branches,
                engine=engine,
                quantize=recipe_name,
                test_set=test_set,
                out=out,
                fused=fused,
                allow_undelegated=allow_undelegated,
                max_accuracy_drop=max_accuracy_drop,
                on_progress=lambda progress: show(recipe_name, progress),
            )
    if as_json:
        document = bundle_document(bundle)
        print_json({**document, "tried": [asdict(trial) for trial in trials]} if trials else document)
    else:
        if trials:
            _print_trials(trials)
        print_bundle(bundle)
        console().print(f"\nNext: paraedge run {bundle.path}")


def _print_trials(trials: list[Trial]) -> None:
    rows = table("tried", ">size", ">largest drop", "")
    for trial in trials:
        size = "" if trial.size_bytes is None else size_text(trial.size_bytes)
        drop = "" if trial.accuracy_drop is None else f"{100 * trial.accuracy_drop:.2f} points"
        rows.add_row(trial.recipe, size, drop, trial.problem)
    console().print(rows)
    console().print()
