"""The training loop: one optimizer step per batch over all prefixes, resumable after every epoch."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor

from paraedge.data.images import ImageDataset
from paraedge.data.signals import SignalDataset
from paraedge.model.checkpoint import Checkpoint, check_exportable, check_target, save_checkpoint
from paraedge.model.config import ParaFormerConfig
from paraedge.model.extension import copy_old_parts
from paraedge.model.paraformer import Block, CLSBlock, ParaFormer, Tokens
from paraedge.model.records import CheckpointConfig, TrainingRecord
from paraedge.training.batches import TrainingBatches, training_batches
from paraedge.training.config import TrainingConfig
from paraedge.training.evaluate import evaluate_model
from paraedge.training.features import FeatureBatches, frozen_features
from paraedge.training.loss import prefix_weights
from paraedge.training.parallel import PARALLEL, OneProcess
from paraedge.training.resume import ResumeFile, RunState
from paraedge.training.step import TrainingStep
from paraedge.training.teacher import Teacher, teacher_for
from paraedge_measure.evaluation import Evaluation
from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import display_name

__all__ = ["NUM_SAMPLES", "TrainingProgress", "learning_rate", "train"]

# Real test images kept with every checkpoint for calibration, parity and golden outputs.
NUM_SAMPLES = 256
# Reading the running means waits for the device, so not after every step.
_REPORT_STEPS = 10
# Of training images that are kept on a GPU.
_MAX_GPU_BYTES = 8 << 30


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training, with running means over the epoch so far."""

    epoch: int
    step: int
    steps_per_epoch: int
    loss: float
    prefix_accuracy: tuple[float, ...]  # on the augmented training images of this epoch
    learning_rate: float


def train(
    data: ImageDataset | SignalDataset,
    checkpoint_config: CheckpointConfig,
    config: TrainingConfig,
    out: str | os.PathLike[str],
    *,
    init: Checkpoint | None = None,
    base: Checkpoint | None = None,
    teacher: Checkpoint | Teacher | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float16,
    parallel: Literal["data", "branches"] = "data",
    compile_parts: bool = False,
    num_workers: int = 0,
    save_interval_s: float = 0.0,
    step_type: type[TrainingStep] = TrainingStep,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    on_features: Callable[[int, int], None] = lambda done, total: None,
) -> Checkpoint:
    """Train a ParaFormer on ``data`` and write the checkpoint folder ``out``.

    After each epoch the state is saved to ``out`` + ``.resume``; the same call continues from there. The forward pass
    runs in bfloat16 on a GPU, in float32 on a CPU. With torch.distributed
    (:func:`paraedge.training.parallel.processes`) all processes make this call and train one network together; the
    first process reports and writes.

    Args:
        data: the images or signals; the test split is used once, after the last epoch.
        checkpoint_config: network shape, normalisation, names.
        config: settings of the training.
        out: folder to write.
        init: weights to start from; ``None`` for random ones.
        base: a network to extend: its parts are frozen, and only the branches after them are trained. See
            :func:`paraedge.training.extend`.
        teacher: a trained network of the same classes, whose predictions have ``config.teacher_weight`` in the
            targets; wrap another architecture in a :class:`paraedge.training.Teacher`.
        device: torch device; ``None`` for a GPU if there is one.
        dtype: type in which the weights are saved; they are rounded to it before the final evaluation.
        parallel: what to divide among several processes: the images of every batch, or the branches.
        compile_parts: compile stem, blocks and teacher with ``torch.compile``; worthwhile for long runs on a GPU.
        num_workers: data loading processes; 0 to load between the steps, on the GPU if the images fit.
        save_interval_s: shortest time between two saves of the state.
        step_type: class of the training step; ``benchmarks/experiments.py`` has another.
        on_progress: called every few steps and at the end of every epoch.
        on_features: called with the number of images that a frozen backbone has processed, and the total.

    Raises:
        InputError: the data does not fit the network, the name or a text is invalid in a bundle, the saved state
            belongs to another run, ``save_interval_s`` is invalid, or the loss became infinite or NaN.
    """
    if not save_interval_s >= 0:  # neither negative nor NaN
        raise InputError(f"invalid save_interval_s {save_interval_s}; give seconds, or 0 to save after every epoch")
    check_target(out)
    check_exportable(checkpoint_config)
    _check_data(data, checkpoint_config.model)
    torch_device = _torch_device(device)
    _check_settings(config, checkpoint_config.model, torch_device, has_teacher=teacher is not None)
    if dist.is_initialized() and (compile_parts or (base is not None and parallel == "branches")):
        what = "compiling" if compile_parts else "extending a model with parallel branches"
        raise InputError(f"{what} works in one process only; start it without torchrun")

    checked_teacher = teacher_for(teacher, data)
    step = step_type(
        _untrained(checkpoint_config.model, config, init, base),
        config,
        torch_device,
        num_frozen=base.config.model.num_branches if base is not None else 0,
        teacher=checked_teacher,
        parallel=PARALLEL[parallel] if dist.is_initialized() else OneProcess,
    )
    started_from = init or base
    previous = started_from.training if started_from is not None else None
    run: list[msgspec.Struct | int | str | None] = [
        checkpoint_config,
        config,
        previous,
        checked_teacher.digest() if checked_teacher else None,
        step.parallel.world_size if step.parallel.own_state else None,
    ]
    resume = ResumeFile.beside(out, step, run)
    state = resume.load(step)
    if compile_parts:
        _compile(step.model, checked_teacher)
    batches, steps_per_epoch = _batches(data, step, state.epochs_done, num_workers, on_features)
    step.expect_steps(config.epochs * steps_per_epoch)

    saved = time.monotonic()
    for epoch in range(state.epochs_done, config.epochs):
        started = time.monotonic()
        _run_epoch(step, epoch, batches, steps_per_epoch, on_progress, resume.path)
        state = RunState(epoch + 1, state.train_seconds + time.monotonic() - started, step.loss)
        is_due = time.monotonic() - saved >= save_interval_s or epoch + 1 == config.epochs
        if step.parallel.first_says(is_due):
            if step.parallel.writes_state:
                resume.save(step, state)
            saved = time.monotonic()

    step.parallel.assemble(step.trained)
    model, evaluation = _tested(step.trained, data, torch_device, dtype)
    record = _record(step, state, evaluation, previous)
    samples = data.test.balanced_sample(NUM_SAMPLES, seed=0)
    checkpoint = Checkpoint(checkpoint_config, model, record, samples, evaluation)
    if step.parallel.rank == 0:
        save_checkpoint(checkpoint, out, dtype=dtype)
    if step.parallel.writes_state:
        resume.path.unlink(missing_ok=True)
    return checkpoint


def _run_epoch(
    step: TrainingStep,
    epoch: int,
    batches: Iterator[tuple[Tensor | list[Tensor], Tensor]],
    steps_per_epoch: int,
    on_progress: Callable[[TrainingProgress], None],
    resume_path: Path,
) -> None:
    """One pass over the train split; the first process reports every few steps.

    Raises:
        InputError: the loss stopped being a number.
    """
    step.start_epoch(epoch)
    for number in range(steps_per_epoch):
        rate = learning_rate(step.config, epoch + number / steps_per_epoch)
        step(*next(batches), rate)
        if number % _REPORT_STEPS and number + 1 < steps_per_epoch:
            continue
        loss = step.loss
        if not math.isfinite(loss):
            raise InputError(
                f"the loss became {loss} in epoch {epoch + 1}; lower learning_rate "
                f"(now {step.config.learning_rate}) and start again without {resume_path}"
            )
        accuracy = step.prefix_accuracy  # all processes together
        if step.parallel.rank == 0:
            on_progress(TrainingProgress(epoch, number, steps_per_epoch, loss, accuracy, rate))


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Of a step that begins after so many epochs, which may be a fraction: linear warm-up, then a cosine to 0."""
    if epoch < config.warmup_epochs:
        return config.learning_rate * min(max(epoch, 1e-2) / config.warmup_epochs, 1.0)
    done = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def _check_data(data: ImageDataset | SignalDataset, shape: ParaFormerConfig) -> None:
    if data.sample_shape != shape.sample_shape:
        has, takes = ("×".join(map(str, sizes)) for sizes in (data.sample_shape, shape.sample_shape))
        raise InputError(f"{data.name} has {data.kind} of {has}, the model takes {takes}; train a model for this shape")
    if isinstance(data, SignalDataset) and shape.signal is not None and data.rate_hz != shape.signal.rate_hz:
        raise InputError(
            f"{data.name} has {data.rate_hz:g} samples a second, the model takes {shape.signal.rate_hz:g}; "
            "resample the data"
        )
    if len(data.class_names) != shape.num_classes:
        raise InputError(
            f"{data.name} has {len(data.class_names)} classes, the model has {shape.num_classes} outputs; "
            "set num_classes, or give other data"
        )


def _check_settings(
    config: TrainingConfig, shape: ParaFormerConfig, device: torch.device, *, has_teacher: bool
) -> None:
    if has_teacher != (config.teacher_weight > 0):
        raise InputError(
            f"teacher_weight is {config.teacher_weight} and there is {'a' if has_teacher else 'no'} teacher; "
            "give both (--teacher) or neither"
        )
    try:
        prefix_weights(shape.num_branches, config.prefix_weights)
    except ValueError as error:
        raise InputError(str(error)) from error
    if config.feature_copies and (not shape.backbone or has_teacher or device.type != "cpu"):
        raise InputError(
            f"feature_copies {config.feature_copies} is for a backbone on the CPU, without a teacher; set it to 0"
        )


def _torch_device(device: str | None) -> torch.device:
    """That device, or the GPU if there is one; it is tried."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"torch has no device {device!r} here: {str(error).splitlines()[0]}") from error
    return found


def _untrained(
    shape: ParaFormerConfig, config: TrainingConfig, init: Checkpoint | None, base: Checkpoint | None
) -> ParaFormer:
    """The network before its first step: random weights, those of ``init``, or old branches of ``base``."""
    torch.manual_seed(config.seed)
    model = ParaFormer(shape)
    if init is not None:
        other = init.config.model
        if differing := [name for name in shape.__struct_fields__ if getattr(other, name) != getattr(shape, name)]:
            values = (f"{name} {getattr(other, name)} instead of {getattr(shape, name)}" for name in differing)
            raise InputError(f"the checkpoint to start from has {', '.join(values)}; start from one of the same shape")
        model.load_state_dict(init.model.state_dict())
    elif base is None or shape.branch_stage is not None:  # new branches may have stages of their own
        model.load_pretrained()
    if base is not None:
        try:
            copy_old_parts(base.model, model)
        except ValueError as error:
            raise InputError(str(error)) from error
    return model


def _compile(model: ParaFormer, teacher: Teacher | None) -> None:
    """Part by part: blocks share their code, where the whole network would take minutes."""
    own = [part for part in model.branches.modules() if isinstance(part, Tokens | Block | CLSBlock)]
    for part in [model.stem, *own]:
        part.compile(dynamic=False)
    if teacher is not None:
        teacher.network.compile(dynamic=False)


def _batches(
    data: ImageDataset | SignalDataset,
    step: TrainingStep,
    epochs_done: int,
    num_workers: int,
    on_features: Callable[[int, int], None],
) -> tuple[Iterator[tuple[Tensor | list[Tensor], Tensor]], int]:
    """The batches of all epochs still to come, and how many an epoch has."""
    config, device, num_classes = step.config, step.device, len(data.class_names)
    images, labels = torch.from_numpy(data.train.inputs), torch.from_numpy(data.train.labels)
    is_cuda = device.type == "cuda"
    if is_cuda and not num_workers and images.nbytes <= _MAX_GPU_BYTES:  # batches are made there too
        images, labels = images.to(device), labels.to(device)
    split: TrainingBatches | FeatureBatches
    if config.feature_copies:
        split = FeatureBatches(frozen_features(step.model, images, config, on_features), labels, num_classes, config)
    else:
        names = data.channel_names if isinstance(data, SignalDataset) else ()
        share = step.parallel.image_share
        split = TrainingBatches(images, labels, num_classes, config, share, step.augment, names)
    pin_memory = is_cuda and images.device.type == "cpu"
    return training_batches(split, epochs_done, num_workers=num_workers, pin_memory=pin_memory), split.steps_per_epoch


def _tested(
    trained: ParaFormer, data: ImageDataset | SignalDataset, device: torch.device, dtype: torch.dtype
) -> tuple[ParaFormer, Evaluation]:
    """What is evaluated is exactly what is saved, by a network that nothing has compiled."""
    model = ParaFormer(trained.config)
    model.load_state_dict(
        {
            name: tensor.to(dtype).float() if tensor.is_floating_point() else tensor
            for name, tensor in trained.state_dict().items()
        }
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # float32 throughout, as on a device
        evaluation = evaluate_model(model.to(device), data.test)
    return model.cpu().eval(), evaluation


def _record(
    step: TrainingStep, state: RunState, evaluation: Evaluation, previous: TrainingRecord | None
) -> TrainingRecord:
    return TrainingRecord(
        command=display_name(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        seed=step.config.seed,
        epochs=step.config.epochs,
        settings=msgspec.to_builtins(step.config),
        hardware=_hardware(step.device, step.parallel.world_size),
        torch_version=str(torch.__version__),
        train_seconds=round(state.train_seconds, 1),
        final_train_loss=round(state.loss, 6),
        num_test_samples=len(evaluation.labels),
        prefix_accuracy=evaluation.prefix_accuracy(),
        previous=previous,
    )


def _hardware(device: torch.device, num_processes: int) -> str:
    together = f", {num_processes} processes" if num_processes > 1 else ""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) + together
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads{together}"
