"""``paraedge export``: from a trained model to a bundle for a device."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.options import BRANCHES, Branches
from paraedge.cli.output import console, json_option, print_json, progress_bar
from paraedge.cli.summary import bundle_document, print_bundle


@click.command()
@click.option("--target", help="Kind of device: android, ios, linux or raspberry-pi. Needed without --plan.")
@click.option("--branches", type=BRANCHES, default="all", help="2: the first two. 0,3,5: those. all. [default: all]")
@click.option("--plan", "plan_path", type=click.Path(path_type=Path), help="Take branches, engine and target from it.")
@click.option("--model", default="fashion-mnist", show_default=True, help="A packaged model or a checkpoint folder.")
@click.option("--engine", help="executorch, litert or onnxruntime. [default: the target's]")
@click.option("--out", type=click.Path(path_type=Path), help="Bundle folder. [default: MODEL-TARGET-BRANCHES.paraedge]")
@click.option("--fused", is_flag=True, help="Add the chosen branches as one ordinary model for other tools.")
@click.option("--allow-undelegated", is_flag=True, help="Accept operators outside the engine's fast backend.")
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 0.1, min_open=True),
    default=0.005,
    show_default=True,
    help="What early stop may cost, a fraction: 0.005 is half a point.",
)
@json_option
def export(
    target: str | None,
    branches: Branches,
    plan_path: Path | None,
    model: str,
    engine: str | None,
    out: Path | None,
    fused: bool,
    allow_undelegated: bool,
    max_accuracy_drop: float,
    as_json: bool,
) -> None:
    """Make a bundle for a device from some branches of a model.

    Every part is compared with torch on real images before the bundle is written. Lowered parts are
    kept in a cache, so another choice of branches of the same model takes seconds.

    \b
    Example:
      paraedge export --target android --branches 2
      paraedge export --target raspberry-pi --model my-model --branches 0,3,5 --out small.paraedge
      paraedge export --plan plan.json
    """
    # Names first: loading torch takes seconds, saying that a target is unknown should not.
    from paraedge.model.records import CheckpointConfig, read_json
    from paraedge.packaged import resolve_checkpoint
    from paraedge_converters.targets import target_for
    from paraedge_runtime.engines import engine_info
    from paraedge_runtime.planning import read_plan
    from paraedge_runtime.session import choose_branches

    config = read_json(resolve_checkpoint(model) / "config.json", CheckpointConfig)
    if plan_path is not None:
        if target is not None or engine is not None or branches is not None:
            raise click.UsageError("--plan says target, engine and branches; leave --target, --engine, --branches out")
        plan = read_plan(plan_path)
        if plan.bundle_name != config.name:
            raise click.UsageError(f"{plan_path} is for {plan.bundle_name}, not {config.name}; name it with --model")
        target, engine, branches = plan.target, plan.engine, plan.branches
    if target is None:
        raise click.UsageError("Missing option '--target'; 'paraedge targets' lists them, and a --plan has one")
    target_for(target)
    if engine is not None:
        engine_info(engine)
    choose_branches(branches, tuple(range(config.model.num_branches)))

    with progress_bar("{task.fields[note]}") as bar:
        task = bar.add_task("loading torch", total=None, note="")
        from paraedge.exporting import export as run_export
        from paraedge_converters.pipeline import ConversionProgress

        cached = 0

        def show(progress: ConversionProgress) -> None:
            nonlocal cached
            cached += progress.cached
            doing = "checking against torch" if progress.what == "parity" else f"lowered {progress.what}"
            note = f"{cached} part(s) from the cache" if cached else ""
            bar.update(task, description=doing, total=progress.total, completed=progress.step, note=note)

        bar.update(task, description="lowering stem")
        bundle = run_export(
            model,
            target=target,
            branches=branches,
            engine=engine,
            out=out,
            fused=fused,
            allow_undelegated=allow_undelegated,
            max_accuracy_drop=max_accuracy_drop,
            on_progress=show,
        )
    if as_json:
        print_json(bundle_document(bundle))
    else:
        print_bundle(bundle)
        console().print(f"\nNext: paraedge run {bundle.path}")
