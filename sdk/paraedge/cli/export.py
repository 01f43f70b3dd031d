"""``paraedge export``: from a trained model to a bundle for a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paraedge.cli._own_network import is_own_network, own_network
from paraedge.cli._signed import telling_of_lost_signature
from paraedge.cli.options import BRANCHES, DATASET, DELEGATE, ENGINE, RECIPE, TARGET, Branches
from paraedge.cli.output import console, echo, json_option, print_json, print_next, progress_bar, size_text, table
from paraedge.cli.summary import bundle_document, print_bundle

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from paraedge.cli._chatter import Chatter
    from paraedge.exporting import Trial
    from paraedge_converters import BranchModel, ModelDescription
    from paraedge_converters.cache import PartCache
    from paraedge_converters.pipeline import ConversionProgress
    from paraedge_converters.request import ExportRequest
    from paraedge_measure.planning import Plan
    from paraedge_runtime.bundle import Bundle

_AUTO = "auto"


@click.command()
@click.option("--target", type=TARGET, help="Kind of device; see 'paraedge targets'. Required without --plan.")
@click.option(
    "--branches",
    type=BRANCHES,
    default="all",
    help="Branches to export: a count (2), indices (0,3,5) or all.  [default: all]",
)
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path),
    help="Take target, engine, branches and recipe from this plan.",
)
@click.option(
    "--model",
    default="fashion-mnist",
    show_default=True,
    help="Packaged model, checkpoint folder, or my_net.py:make, a function that returns a network (runs the file).",
)
@click.option("--engine", type=ENGINE, help="Engine. [default: the target's]")
@click.option(
    "--quantize",
    type=RECIPE,
    metavar="RECIPE",
    help="fp32, fp16, int8-dynamic, int8-static, int8-weight, int4-weight; one of these with +fp32-stem; small or "
    "auto. [default: fp32]",
)
@click.option("--dataset", type=DATASET, help="Data set to measure on. [default: the one the model was trained on]")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder, or .npz file, of the data set. Measures the exported parts.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Bundle to write. [default: MODEL-TARGET-BRANCHES.paraedge]"
)
@click.option("--fused", is_flag=True, help="Add the chosen branches as a single ordinary model file.")
@click.option("--allow-undelegated", is_flag=True, help="Allow operators outside the engine's fast backend.")
@click.option(
    "--delegate",
    type=DELEGATE,
    help="GPU or NPU to run the stem on (ethos-u55, ethos-u85: all parts). Branches stay on the CPU.",
)
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 0.1, min_open=True),
    default=0.005,
    show_default=True,
    help="Accuracy that early stop, and --quantize auto, may each lose; 0.005 is half a point.",
)
@json_option
def export(
    target: str | None,
    branches: Branches,
    plan_path: Path | None,
    model: str,
    engine: str | None,
    quantize: str | None,
    dataset: str | None,
    data_dir: Path | None,
    out: Path | None,
    fused: bool,
    allow_undelegated: bool,
    delegate: str | None,
    max_accuracy_drop: float,
    as_json: bool,
) -> None:
    """Export a model to a bundle for a device.

    Every part is compared with torch on real images before the bundle is written. Lowered parts are
    cached, so exporting other branches of the same model takes seconds.

    --quantize small is the recipe that 'paraedge targets' lists for the target; it kept the accuracy of
    the packaged models. --quantize auto tries all recipes and keeps the smallest bundle that loses at most
    --max-accuracy-drop at any number of branches; it needs --data-dir or $PARAEDGE_DATA.

    With --data-dir or --dataset, accuracy and early stop are measured on the exported parts.

    --model my_net.py:make exports a network of your own: the file is executed, and make() returns a BranchModel and a
    ModelDescription, or a BranchModel alone with --dataset.

    \b
    Example:
      paraedge export --target android --branches 2
      paraedge export --target android --quantize small
      paraedge export --target raspberry-pi --model my-model --branches 0,3,5
      paraedge export --target linux --data-dir data --quantize auto
      paraedge export --target android --model my_net.py:make
      paraedge export --target ios --delegate coreml
      paraedge export --plan plan.json
    """
    # What can be refused is refused first: loading torch takes seconds, lowering takes minutes.
    from paraedge.data.datasets import DATASETS, check_old_split
    from paraedge.model.records import CheckpointConfig, TrainingRecord, read_json
    from paraedge.packaged import resolve_checkpoint
    from paraedge_converters.request import fitting_name, parse_request
    from paraedge_runtime.errors import InputError

    own = None
    if is_own_network(model):
        if quantize == _AUTO:
            raise click.UsageError("--quantize auto is for checkpoints; name a quantization recipe, or small")
        with progress_bar("") as bar:
            bar.add_task(f"running {model}", total=None, note="")
            own = own_network(model, dataset, data_dir, max_accuracy_drop)
        name, num_branches = own[1].name, len(own[0].branches)
    else:
        config = read_json(resolve_checkpoint(model) / "config.json", CheckpointConfig)
        name, num_branches = fitting_name(config.name), config.model.num_branches
    if plan_path is not None:
        if any(given is not None for given in (target, engine, branches, quantize)):
            raise click.UsageError(
                "--plan sets target, engine, branches and recipe; remove --target, --engine, --branches and --quantize"
            )
        plan = _read_plan(plan_path, name)
        target, engine, branches, quantize = plan.target, plan.engine, plan.branches, plan.recipe
    if target is None:
        raise click.UsageError("Missing option '--target'; see 'paraedge targets', or give a --plan")
    request = parse_request(
        name=name,
        num_branches=num_branches,
        target=target,
        engine=engine,
        quantize="fp32" if quantize in (None, _AUTO) else quantize,
        branches=branches,
        out=out,
        fused=fused,
        allow_undelegated=allow_undelegated,
        delegate=delegate,
    )
    if delegate is not None and quantize == _AUTO:
        raise click.UsageError("--quantize auto compares bundles for the CPU; remove --delegate, or name a recipe")
    if fused and quantize == _AUTO:
        raise click.UsageError(
            "--quantize auto compares bundles without a fused model; remove --fused, or name a recipe"
        )
    if own is not None:
        with telling_of_lost_signature(request.out):
            bundle, note = _export_own(request, *own)
        _print_result(bundle, note, [], as_json)
        return
    auto = quantize == _AUTO
    measured = dataset or config.loader or config.dataset if auto or dataset or data_dir is not None else None
    if measured is not None and measured not in DATASETS:
        raise InputError(
            f"{config.name} was trained on {config.dataset}, which cannot be loaded by name; "
            f"name the data set with --dataset {', '.join(DATASETS)}"
        )
    if measured is not None:
        seed = read_json(resolve_checkpoint(model) / "training.json", TrainingRecord).seed
        check_old_split(config.dataset, config.loader, seed, measured, data_dir)
    with telling_of_lost_signature(out if auto else request.out):
        bundle, trials, note = _export(request, model, auto, out, (measured, data_dir), max_accuracy_drop)
    _print_result(bundle, note, trials, as_json)


def _print_result(bundle: Bundle, note: str, trials: list[Trial], as_json: bool) -> None:
    if note:
        echo(note, err=True)
    if as_json:
        document = bundle_document(bundle)
        print_json({**document, "tried": [asdict(trial) for trial in trials]} if trials else document)
        return
    if trials:
        _print_trials(trials)
    print_bundle(bundle)
    if all(part.proof == "engine" for part in bundle.card.parts.values()):
        print_next("paraedge", "run", bundle.path)


def _read_plan(path: Path, name: str) -> Plan:
    """A plan that is for the model ``name``."""
    from paraedge_measure.planning import read_plan

    plan = read_plan(path)
    if plan.bundle_name != name:
        raise click.UsageError(f"{path} is a plan for {plan.bundle_name}, not {name}; name that model with --model")
    return plan


def _export(
    request: ExportRequest,
    model: str,
    auto: bool,
    out: Path | None,
    measured: tuple[str | None, Path | None],
    max_accuracy_drop: float,
) -> tuple[Bundle, list[Trial], str]:
    """The bundle, the recipes that were tried for it, and a note for people.

    ``measured`` is the data set that the parts are measured on, if any, and where it is.
    """
    from paraedge.cli._chatter import captured_chatter

    with (
        progress_bar("{task.fields[note]}", is_steady=False) as bar,
        captured_chatter() as chatter,
        _compilers_words(chatter),
    ):
        task = bar.add_task("loading torch", total=None, note="")
        from paraedge.data.bundles import load_for_labels
        from paraedge.exporting import export_checkpoint, export_smallest
        from paraedge.model import load_checkpoint
        from paraedge.packaged import resolve_checkpoint
        from paraedge_converters.cache import PartCache

        checkpoint = load_checkpoint(resolve_checkpoint(model))
        test_set = None
        dataset, data_dir = measured
        if dataset is not None:
            test_set = load_for_labels(
                dataset,
                data_dir,
                spec=checkpoint.config.model.input_spec,
                labels=checkpoint.config.labels,
                owner="the model",
            )
        show = _Shown(bar, task)
        bar.update(task, description="lowering stem")
        cache = PartCache()
        trials: list[Trial] = []
        if test_set is not None and auto:
            bundle, trials = export_smallest(
                checkpoint,
                target=request.target,
                test_set=test_set,
                branches=request.branches,
                engine=request.engine,
                out=out,
                allow_undelegated=request.allow_undelegated,
                max_accuracy_drop=max_accuracy_drop,
                cache=cache,
                on_progress=show,
            )
        else:
            bundle = export_checkpoint(
                checkpoint,
                request,
                test_set=test_set,
                max_accuracy_drop=max_accuracy_drop,
                cache=cache,
                on_progress=lambda progress: show(request.quantize, progress),
            )
    return bundle, trials, _not_kept(cache)


def _export_own(request: ExportRequest, network: BranchModel, description: ModelDescription) -> tuple[Bundle, str]:
    """The bundle of a network of the user's own, and a note for people."""
    from paraedge.cli._chatter import captured_chatter
    from paraedge_converters import convert
    from paraedge_converters.cache import PartCache

    cache = PartCache()
    with (
        progress_bar("{task.fields[note]}", is_steady=False) as bar,
        captured_chatter() as chatter,
        _compilers_words(chatter),
    ):
        show = _Shown(bar, bar.add_task("lowering stem", total=None, note=""))
        bundle = convert(
            network,
            description,
            request.out,
            target=request.target,
            engine=request.engine,
            quantize=request.quantize,
            branches=request.branches,
            fused=request.fused,
            allow_undelegated=request.allow_undelegated,
            delegate=request.delegate,
            cache=cache,
            on_progress=lambda progress: show(request.quantize, progress),
        )
    return bundle, _not_kept(cache)


class _Shown:
    """The export's progress in a progress bar."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task, self._cached = bar, task, 0

    def __call__(self, quantize: str, progress: ConversionProgress) -> None:
        self._cached += progress.cached
        what = {"parity": "checking against torch", "test set": "running the test set"}
        self._bar.update(
            self._task,
            description=f"{quantize}: {what.get(progress.what, f'lowered {progress.what}')}",
            total=progress.total,
            completed=progress.step,
            note=f"{self._cached} cached" if self._cached else "",
        )


@contextlib.contextmanager
def _compilers_words(chatter: Chatter) -> Iterator[None]:
    """Compilers print what is wrong: it is told with the error."""
    from paraedge_runtime.errors import ConversionError

    try:
        yield
    except ConversionError as error:
        from paraedge_converters.backends import in_one_line

        if type(error) is ConversionError and (tail := in_one_line(chatter.tail())):
            raise ConversionError(f"{error} ({tail})") from error
        raise


def _not_kept(cache: PartCache) -> str:
    return f"lowered parts were not kept: {cache.problem}" if cache.problem else ""


def _print_trials(trials: list[Trial]) -> None:
    rows = table("tried", ">size", ">largest drop", "~")
    for trial in trials:
        size = "" if trial.size_bytes is None else size_text(trial.size_bytes)
        drop = "" if trial.accuracy_drop is None else f"{100 * trial.accuracy_drop:.2f} points"
        rows.add_row(trial.quantization, size, drop, trial.problem)
    console().print(rows)
    console().print()
