"""Which branches, engine and threads meet a budget: predicted from a device's profile, before exporting.

The prediction is defined in ``docs/device-profile.md``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec.structs import force_setattr

from paraedge_measure.device import Device, Measurement
from paraedge_measure.evaluation import Evaluation
from paraedge_measure.subsets import Positions, worthwhile
from paraedge_runtime import Bundle
from paraedge_runtime._arguments import as_instance, as_instances, as_list, as_number, as_path, as_whole
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.atomic import check_replaceable, new_file
from paraedge_runtime.engines import ENGINES
from paraedge_runtime.errors import InputError, PlanError, ProfileError
from paraedge_runtime.manifest import Manifest

__all__ = [
    "Plan",
    "Wish",
    "belong_together",
    "candidate_plans",
    "choose_plan",
    "pareto_plans",
    "predict_request_ms",
    "read_plan",
    "write_plan",
]

_MAX_PLAN_BYTES = 1 << 20


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requirements of a plan: p95 latency of at most ``budget_ms``, and two optional limits."""

    budget_ms: Annotated[float, msgspec.Meta(gt=0)]
    min_accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "budget_ms", as_number("budget_ms", self.budget_ms))
        if self.min_accuracy is not None:
            force_setattr(self, "min_accuracy", as_number("min_accuracy", self.min_accuracy))
            if not 0 <= self.min_accuracy <= 1:
                raise InputError(f"min_accuracy must be from 0 to 1, such as 0.9, got {self.min_accuracy!r}")
        if self.max_bytes is not None:
            force_setattr(self, "max_bytes", as_whole("max_bytes", self.max_bytes))
        if self.budget_ms <= 0:
            raise InputError(f"budget_ms must be above 0, got {self.budget_ms!r}")

    def shortfall(self, plan: Plan) -> float:
        """The largest factor by which ``plan`` misses a limit; at most 1 when it keeps all."""
        factors = [plan.p95_ms / self.budget_ms]
        if self.min_accuracy is not None:
            factors.append(self.min_accuracy / plan.accuracy if plan.accuracy > 0 else float("inf"))
        if self.max_bytes is not None:
            factors.append(plan.size_bytes / self.max_bytes)
        return max(factors)


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A choice of branches, engine and threads, with its latency, accuracy and size.

    ``branches`` are indexes in the model, ascending; they run in this order. ``size_bytes`` counts programs and
    golden files. ``memory_bytes`` was measured with all branches, so it is an upper bound for fewer.
    """

    format: Literal["paraedge-plan/1"] = "paraedge-plan/1"
    device: str
    bundle_name: str
    bundle_sha256: str
    branches: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)]
    engine: str
    target: str
    recipe: str
    threads: Annotated[int, msgspec.Meta(ge=1)]
    p50_ms: float
    p95_ms: float
    accuracy: float
    size_bytes: int
    memory_bytes: int | None
    valid: bool

    def __str__(self) -> str:
        return (
            f"{'branch' if len(self.branches) == 1 else 'branches'} {','.join(map(str, self.branches))} "
            f"with {self.engine} on {self.threads} thread(s): "
            f"p95 {self.p95_ms:.2f} ms, accuracy {self.accuracy:.4f}, {self.size_bytes} bytes"
        )


def predict_request_ms(measurement: Measurement, positions: Sequence[int]) -> tuple[float, float]:
    """p50 and p95 of a request with the branches at ``positions`` of the bundle, on the threads of ``measurement``.

    p50 is the sum of three times: the stem's p50; the time to run the branches on the threads by list scheduling,
    each slowed by the contention factor of the busy workers; and the rest of the measured whole request, in
    proportion to the number of branches. p95 is p50 times the measured ratio of the whole request's p95 to its p50.

    Raises:
        InputError: ``positions`` is empty, or has a position without a branch.
    """
    work_ms = [latency.p50_ms for latency in as_instance("measurement", measurement, Measurement).branches.values()]
    positions = [as_whole("a position", position, least=-(2**53)) for position in as_list("positions", positions)]
    if not positions or not all(0 <= position < len(work_ms) for position in positions):
        raise InputError(
            f"positions are {list(positions)}; the measurement has {len(work_ms)} branches, the first at 0"
        )
    stem_ms = measurement.parts["stem"].p50_ms
    whole_ms = stem_ms + _list_scheduled_ms(work_ms, measurement.contention)
    beyond_ms = max(0.0, measurement.request.p50_ms - whole_ms)
    p50_ms = stem_ms + _list_scheduled_ms([work_ms[position] for position in positions], measurement.contention)
    p50_ms += beyond_ms * len(positions) / len(work_ms)
    return p50_ms, p50_ms * measurement.request.p95_ms / max(measurement.request.p50_ms, 1e-9)


def _list_scheduled_ms(work_ms: Sequence[float], contention: Sequence[float]) -> float:
    """Workers take the largest branch left when they are free; ``contention`` has one factor per busy worker."""
    waiting = sorted(work_ms, reverse=True)
    running: list[float] = []  # what is left of each, as if it were alone
    now_ms = 0.0
    while waiting or running:
        while waiting and len(running) < len(contention):
            running.append(waiting.pop(0))
        step = min(running)
        now_ms += step * contention[len(running) - 1]
        running = [left - step for left in running if left > step]
    return now_ms


def belong_together(bundle: Bundle, evaluation: Evaluation) -> bool:
    """Whether the bundle states the accuracy that these logits, of all branches of a model, give."""
    manifest, card = bundle.manifest, bundle.card
    return (
        card.accuracy is not None
        and manifest.total_branches == len(evaluation.branch_logits)
        and card.accuracy.num_samples == len(evaluation.labels)
        and card.accuracy.prefix_accuracy == evaluation.prefix_accuracy(manifest.branch_indexes)
    )


def candidate_plans(device: Device, bundle: Bundle, evaluation: Evaluation | None = None) -> tuple[Plan, ...]:
    """List the choices of branches of a bundle, for every engine and thread count measured on the device.

    Without an ``evaluation`` the choices are all prefixes, with the bundle's accuracy. With an ``evaluation`` of all
    branches, :func:`~paraedge_measure.subsets.worthwhile` adds other choices and gives the accuracy of all.

    Raises:
        ProfileError: the bundle was not measured on this device, or the engine is unknown.
        InputError: the bundle has no accuracy, or the evaluation belongs to another model.
    """
    as_instance("device", device, Device)
    manifest, card = as_instance("bundle", bundle, Bundle).manifest, bundle.card
    if evaluation is not None:
        as_instance("evaluation", evaluation, Evaluation)
    if not manifest.labels:
        raise InputError(
            f"{bundle.path} outputs a vector, which has no accuracy to choose by; 'paraedge compare' shows the error "
            "and the time of every prefix of its branches"
        )
    if card.accuracy is None:
        raise InputError(f"{bundle.path} has no accuracy; {_how_to_measure(manifest)}")
    if evaluation is not None and not belong_together(bundle, evaluation):
        if manifest.quantization != "fp32":
            raise InputError(
                f"{bundle.path} is {manifest.quantization}, and the logits of a checkpoint are for float32; leave out "
                "--model"
            )
        raise InputError(
            f"{bundle.path} was not exported from this model: their accuracies differ; name its own checkpoint"
        )
    measured = [one for one in device.measurements if one.bundle_sha256 == bundle.sha256]
    if not measured:
        raise ProfileError(
            f"{bundle.path} was not measured on {device.name}; run 'paraedge profile' with it and this device file, "
            "or name a bundle that was"
        )
    unknown = sorted({one.engine for one in measured} - set(ENGINES))
    if unknown:
        raise ProfileError(
            f"the profile of {device.name} names the engine {unknown[0]!r}, which is none of {', '.join(ENGINES)}; "
            "update paraedge, or profile it again"
        )
    golden_bytes = sum(entry.size_bytes for entry in manifest.files)
    prefixes = {tuple(range(k + 1)): accuracy for k, accuracy in enumerate(card.accuracy.prefix_accuracy)}
    own = None if evaluation is None else evaluation.of(manifest.branch_indexes)
    plans: list[Plan] = []
    for one in measured:
        accuracy_of = prefixes if own is None else worthwhile(own, partial(_p50_ms, one))
        for positions, accuracy in accuracy_of.items():
            p50_ms, p95_ms = predict_request_ms(one, positions)
            branches = [manifest.branches[position] for position in positions]
            plans.append(
                Plan(
                    device=device.name,
                    bundle_name=manifest.name,
                    bundle_sha256=bundle.sha256,
                    branches=tuple(branch.index for branch in branches),
                    engine=one.engine,
                    target=manifest.target,
                    recipe=manifest.quantization,
                    threads=one.threads,
                    p50_ms=round(p50_ms, 6),
                    p95_ms=round(p95_ms, 6),
                    accuracy=accuracy,
                    size_bytes=sum(part.size_bytes for part in (manifest.stem, *branches)) + golden_bytes,
                    memory_bytes=one.memory_bytes,
                    valid=one.valid,
                )
            )
    return tuple(plans)


def _how_to_measure(manifest: Manifest) -> str:
    if not manifest.classifies_images:
        return "convert the model again with a test_set in its ModelDescription"
    how = "a prefix of branches" if manifest.quantization == "fp32" else "--data-dir, which measures it"
    return f"export it again, with {how}"


def _p50_ms(measurement: Measurement, positions: Positions) -> float:
    return predict_request_ms(measurement, positions)[0]


def pareto_plans(plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Return the Pareto-optimal plans by p95 latency, accuracy and size, fastest first."""
    kept: list[Plan] = []
    for plan in sorted(
        as_instances("plans", plans, Plan), key=lambda one: (one.p95_ms, -one.accuracy, one.size_bytes, one.threads)
    ):
        if not any(other.accuracy >= plan.accuracy and other.size_bytes <= plan.size_bytes for other in kept):
            kept.append(plan)
    return tuple(kept)


def choose_plan(plans: Iterable[Plan], wish: Wish) -> Plan:
    """Return the most accurate plan that meets the requirements; ties go to the fastest, then the smallest.

    Raises:
        PlanError: no plan does; the message has the nearest one.
    """
    every = as_instances("plans", plans, Plan)
    as_instance("wish", wish, Wish)
    fitting = [plan for plan in every if wish.shortfall(plan) <= 1]
    if fitting:
        return min(fitting, key=lambda one: (-one.accuracy, one.p95_ms, one.size_bytes, one.threads))
    if not every:
        raise PlanError("no bundle has been profiled; profile one first with 'paraedge profile'")
    nearest = min(every, key=wish.shortfall)
    wanted = [f"p95 within {wish.budget_ms:g} ms"]
    wanted += [] if wish.min_accuracy is None else [f"accuracy of at least {wish.min_accuracy:g}"]
    wanted += [] if wish.max_bytes is None else [f"at most {wish.max_bytes} bytes"]
    raise PlanError(f"no choice satisfies {', '.join(wanted)}; the nearest is {nearest}; relax a limit")


def write_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write ``plan.json`` for ``paraedge export --plan``, completely or not at all.

    Raises:
        PlanError: it cannot be written, or an existing file is not a plan; that file is kept.
    """
    as_instance("plan", plan, Plan)
    target = as_path("the plan's file", path)
    try:
        check_replaceable(target, b'"paraedge-plan/', "a plan")
        with new_file(target) as building:
            building.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")
    except InputError as error:
        raise PlanError(str(error)) from None
    except OSError as error:
        raise PlanError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a ``plan.json``.

    Raises:
        PlanError: the file is missing or is not a plan; the message names the field.
    """
    target = as_path("the plan's file", path)
    try:
        return msgspec.json.decode(read_bounded(target, _MAX_PLAN_BYTES), type=Plan)
    except FileNotFoundError:
        raise PlanError(f"{path} does not exist; make it: {_command(path)}") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise PlanError(f"{path}: {problem}; make it again: {_command(path)}") from error


def _command(path: str | os.PathLike[str]) -> str:
    return shlex.join(["paraedge", "plan", "--profile", "device.json", "--budget-ms", "10", "--out", str(path)])
