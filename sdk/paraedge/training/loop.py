"""The training loop: one optimizer step per batch over all prefixes, resumable after every epoch."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch
import torch.distributed as dist

from paraedge.data.images import ImageDataset
from paraedge.data.signals import SignalDataset
from paraedge.model.checkpoint import Checkpoint, check_exportable, check_target, save_checkpoint
from paraedge.model.config import ParaFormerConfig
from paraedge.model.extension import copy_old_parts
from paraedge.model.paraformer import Block, CLSBlock, ParaFormer, Tokens
from paraedge.model.records import CheckpointConfig, TrainingRecord
from paraedge.training.augment import check_augmentation
from paraedge.training.batches import TrainingBatches, training_batches
from paraedge.training.config import TrainingConfig
from paraedge.training.evaluate import evaluate_model
from paraedge.training.features import FeatureBatches, frozen_features
from paraedge.training.loss import prefix_weights
from paraedge.training.parallel import PARALLEL, OneProcess
from paraedge.training.step import TrainingStep
from paraedge.training.teacher import Teacher
from paraedge_runtime.atomic import new_file
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
    """Where the run is, with running means over the epoch so far."""

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
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    on_features: Callable[[int, int], None] = lambda done, total: None,
) -> Checkpoint:
    """Train a ParaFormer on ``data`` and write the checkpoint folder ``out``.

    After an epoch the state goes to ``out`` + ``.resume``; the same call continues from there.
    On a GPU the forward pass runs in bfloat16; on a CPU in float32. Where torch.distributed is set up
    (:func:`paraedge.training.parallel.processes`), all processes make this call and train one network
    together; the first one reports and writes.

    Args:
        data: the images or signals; the test split is used once, after the last epoch.
        checkpoint_config: network shape, normalisation, names.
        config: how to train.
        out: folder to write.
        init: start from these weights rather than from random ones.
        base: a network that this one extends: its parts stay as they are, and only the branches after
            them learn. See :func:`paraedge.training.extend`.
        teacher: a trained network of the same classes, whose outputs are ``config.teacher_weight`` of the targets;
            of another architecture as a :class:`paraedge.training.Teacher`.
        device: torch device, the GPU if there is one when ``None``.
        dtype: weights are rounded to this type before the final evaluation, and saved so.
        parallel: what several processes share out, the images of every batch or the branches.
        compile_parts: compile stem, blocks and teacher with ``torch.compile``; pays in runs of minutes on a GPU.
        num_workers: processes that make batches; 0 to make them in between the steps, on a GPU where the images fit.
        save_interval_s: the state to resume from is saved at most this often.
        on_progress: called every few steps and at the end of every epoch.
        on_features: called with the number of images that a frozen backbone has seen, and that of all.

    Raises:
        InputError: the data does not fit the network, no bundle could have the name or a text is too long for one,
            the state to resume from belongs to another run, ``save_interval_s`` is no time, or the loss stopped
            being a number.
    """
    if not save_interval_s >= 0:  # neither negative nor NaN
        raise InputError(f"invalid save_interval_s {save_interval_s}; give seconds, or 0 to save after every epoch")
    check_target(out)
    check_exportable(checkpoint_config)
    check_augmentation(config)
    shape = checkpoint_config.model
    _check_inputs(data, shape)
    if len(data.class_names) != shape.num_classes:
        raise InputError(f"{data.name} has {len(data.class_names)} classes, the model has {shape.num_classes} outputs")
    if (teacher is None) != (config.teacher_weight == 0.0):
        raise InputError(
            f"teacher_weight is {config.teacher_weight} and there is {'no' if teacher is None else 'a'} teacher; "
            "give both (--teacher) or neither"
        )
    wise = _teacher(teacher, data)
    try:
        prefix_weights(shape.num_branches, config.prefix_weights)
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=torch_device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"torch has no device {device!r} here: {str(error).splitlines()[0]}") from error
    how = PARALLEL[parallel] if dist.is_initialized() else OneProcess
    if dist.is_initialized() and (compile_parts or (base is not None and parallel == "branches")):
        raise InputError("several processes cannot compile, nor share the branches of an extension")
    torch.manual_seed(config.seed)
    model = ParaFormer(shape)
    if init is not None:
        if init.config.model != shape:
            raise InputError(f"the checkpoint to start from is {init.config.model}, this run trains {shape}")
        model.load_state_dict(init.model.state_dict())
    elif base is None:
        model.load_pretrained()
    if config.feature_copies and (not shape.backbone or teacher is not None or torch_device.type != "cpu"):
        raise InputError(
            f"feature_copies {config.feature_copies} is for a backbone on the CPU, without a teacher; set it to 0"
        )
    num_frozen = 0
    if base is not None:
        try:
            copy_old_parts(base.model, model)
        except ValueError as error:
            raise InputError(str(error)) from error
        num_frozen = base.config.model.num_branches
    step = TrainingStep(
        model,
        config,
        torch_device,
        num_frozen=num_frozen,
        teacher=wise,
        parallel=how,
    )
    started_from = init or base
    previous = started_from.training if started_from is not None else None
    first = step.parallel.rank == 0
    own_state = step.parallel.own_state
    # Path: "out/" is "out"
    resume = _ResumeFile(
        Path(f"{Path(out)}.resume" + (str(step.parallel.rank) if own_state and not first else "")),
        [
            checkpoint_config,
            config,
            previous,
            *([wise.digest()] if wise else []),
            *([step.parallel.world_size] if own_state else []),
        ],
    )
    state = resume.load(step)
    if step.parallel.first_says(state.epochs_done) != state.epochs_done:
        raise InputError(f"{resume.path} and {out}.resume were saved after different epochs; delete all of them")
    if compile_parts:  # part by part: blocks share their code, where the whole network would take minutes
        own = [part for part in model.branches.modules() if isinstance(part, Tokens | Block | CLSBlock)]
        for part in [model.stem, *own]:
            part.compile(dynamic=False)
        if wise is not None:
            wise.network.compile(dynamic=False)

    images, labels = torch.from_numpy(data.train.inputs), torch.from_numpy(data.train.labels)
    is_cuda = torch_device.type == "cuda"
    if is_cuda and not num_workers and images.nbytes <= _MAX_GPU_BYTES:  # batches are made there too
        images, labels = images.to(torch_device), labels.to(torch_device)
    train_split: TrainingBatches | FeatureBatches
    if config.feature_copies:
        features = frozen_features(model, images, config, on_features)
        train_split = FeatureBatches(features, labels, shape.num_classes, config)
    else:
        names = () if shape.signal is None else shape.signal.channel_names
        train_split = TrainingBatches(images, labels, shape.num_classes, config, step.parallel.image_share, names)
    steps_per_epoch = train_split.steps_per_epoch
    batches = training_batches(
        train_split, state.epochs_done, num_workers=num_workers, pin_memory=is_cuda and images.device.type == "cpu"
    )
    saved = time.monotonic()
    for epoch in range(state.epochs_done, config.epochs):
        started = time.monotonic()
        step.start_epoch(epoch)
        for number in range(steps_per_epoch):
            rate = learning_rate(config, epoch + number / steps_per_epoch)
            step(*next(batches), rate)
            if number % _REPORT_STEPS and number + 1 < steps_per_epoch:
                continue
            loss = step.loss
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss became {loss} in epoch {epoch + 1}; lower --learning-rate "
                    f"(now {config.learning_rate}) and start again without {resume.path}"
                )
            accuracy = step.prefix_accuracy
            if first:
                on_progress(TrainingProgress(epoch, number, steps_per_epoch, loss, accuracy, rate))
        state = _RunState(epoch + 1, state.train_seconds + time.monotonic() - started, step.loss)
        is_due = time.monotonic() - saved >= save_interval_s or epoch + 1 == config.epochs
        if step.parallel.first_says(is_due):
            if first or own_state:
                resume.save(step, state)
            saved = time.monotonic()

    step.parallel.assemble(step.trained)
    # What is evaluated is exactly what is saved, by a network that nothing has compiled.
    model = ParaFormer(shape)
    model.load_state_dict(
        {
            name: tensor.to(dtype).float() if tensor.is_floating_point() else tensor
            for name, tensor in step.trained.state_dict().items()
        }
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # float32 throughout, as on a device
        evaluation = evaluate_model(model.to(torch_device), data.test)
    model = model.cpu().eval()
    record = TrainingRecord(
        command=display_name(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        seed=config.seed,
        epochs=config.epochs,
        settings=msgspec.to_builtins(config),
        hardware=_hardware(torch_device, step.parallel.world_size),
        torch_version=str(torch.__version__),
        train_seconds=round(state.train_seconds, 1),
        final_train_loss=round(state.loss, 6),
        num_test_samples=len(data.test),
        prefix_accuracy=evaluation.prefix_accuracy(),
        previous=previous,
    )
    samples = data.test.balanced_sample(NUM_SAMPLES, seed=0)
    checkpoint = Checkpoint(checkpoint_config, model, record, samples, evaluation)
    if first:
        save_checkpoint(checkpoint, out, dtype=dtype)
    if first or own_state:
        resume.path.unlink(missing_ok=True)
    return checkpoint


def _check_inputs(data: ImageDataset | SignalDataset, shape: ParaFormerConfig) -> None:
    """Refuse data that the network cannot take."""
    if data.sample_shape != shape.sample_shape:
        has, takes = ("×".join(map(str, sizes)) for sizes in (data.sample_shape, shape.sample_shape))
        raise InputError(f"{data.name} has {data.kind} of {has}, the model takes {takes}")
    if isinstance(data, SignalDataset) and shape.signal is not None and data.rate_hz != shape.signal.rate_hz:
        raise InputError(f"{data.name} has {data.rate_hz:g} samples a second, the model takes {shape.signal.rate_hz:g}")


@dataclass(frozen=True)
class _RunState:
    epochs_done: int
    train_seconds: float
    loss: float


class _ResumeFile:
    """State after the last whole epoch. Written by torch, read back with ``weights_only``: nothing runs."""

    def __init__(self, path: Path, run: list[msgspec.Struct | int | str | None]) -> None:
        self.path = path
        self._run = msgspec.json.encode(run).decode()

    def save(self, step: TrainingStep, state: _RunState) -> None:
        stored = {
            "run": self._run,
            "model": step.model.state_dict(),
            "optimizer": step.optimizer.state_dict(),
            "average": None if step.average is None else step.average.state_dict(),
            "state": [state.epochs_done, state.train_seconds, state.loss],
        }
        try:
            with new_file(self.path) as building, building.open("wb") as file:
                torch.save(stored, file)
        # RuntimeError: of torch's writer, where the file could not be written to its end.
        except (OSError, RuntimeError) as error:
            problem = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or error
            raise InputError(
                f"{self.path} cannot be written: {problem}; free space and run the same command again, it goes on "
                "after the last epoch that was saved"
            ) from error

    def load(self, step: TrainingStep) -> _RunState:
        if not self.path.exists():
            return _RunState(0, 0.0, math.nan)
        try:
            stored = torch.load(self.path, map_location=next(step.model.parameters()).device, weights_only=True)
            if stored["run"] != self._run:
                raise InputError(
                    f"{self.path} belongs to a run with other settings; use the same ones to "
                    "continue it, or delete it to start again"
                )
            step.model.load_state_dict(stored["model"])
            step.optimizer.load_state_dict(stored["optimizer"])
            if step.average is not None:
                step.average.load_state_dict(stored["average"])
            return _RunState(*stored["state"])
        except InputError:
            raise
        except Exception as error:  # torch.load raises many kinds for a damaged file
            raise InputError(f"{self.path} is damaged ({type(error).__name__}); delete it to start again") from error


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Of a step that begins after so many epochs, which may be a fraction: linear warm-up, then a cosine to 0."""
    if epoch < config.warmup_epochs:
        return config.learning_rate * min(max(epoch, 1e-2) / config.warmup_epochs, 1.0)
    done = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def _teacher(given: Checkpoint | Teacher | None, data: ImageDataset | SignalDataset) -> Teacher | None:
    """The teacher of the images of ``data``, checked on one of them.

    Raises:
        InputError: it knows other classes, or takes other images.
    """
    if given is None:
        return None
    problem = ""
    if isinstance(given, Checkpoint):
        if given.config.labels != data.class_names:
            problem = f"knows the classes {', '.join(given.config.labels)}"
        given = Teacher(given.model, given.config.model.mean, given.config.model.std)
    if not problem:
        try:
            logits = given.ready(torch.device("cpu")).logits(torch.from_numpy(data.train.inputs[:1]))
            if logits.shape != (1, len(data.class_names)):
                problem = f"gives logits of shape {tuple(logits.shape)} for one image"
        except (RuntimeError, ValueError, TypeError) as error:
            problem = f"cannot take an image ({str(error).splitlines()[0]})"
    if problem:
        raise InputError(
            f"the teacher {problem}; {data.name} has {len(data.class_names)} classes and {data.kind} of "
            f"{'×'.join(map(str, data.sample_shape))}: give one trained on the same data"
        )
    return given


def _hardware(device: torch.device, num_processes: int) -> str:
    together = f", {num_processes} processes" if num_processes > 1 else ""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) + together
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads{together}"
