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

import msgspec
import torch
from torch import Tensor, nn

from paraedge.data.images import ImageDataset
from paraedge.model.checkpoint import Checkpoint, check_target, save_checkpoint
from paraedge.model.paraformer import ParaFormer
from paraedge.model.records import CheckpointConfig, TrainingRecord
from paraedge.training.batches import normalise, training_batches
from paraedge.training.config import TrainingConfig
from paraedge.training.evaluate import evaluate_model
from paraedge.training.loss import prefix_weights, progressive_loss
from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import InputError

__all__ = ["NUM_SAMPLES", "TrainingProgress", "train"]

# Real test images kept with every checkpoint for calibration, parity and golden outputs.
NUM_SAMPLES = 256
# Reading the running means waits for the device, so not after every step.
_REPORT_STEPS = 10


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
    data: ImageDataset,
    checkpoint_config: CheckpointConfig,
    config: TrainingConfig,
    out: str | os.PathLike[str],
    *,
    init: Checkpoint | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float16,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Checkpoint:
    """Train a ParaFormer on ``data`` and write the checkpoint folder ``out``.

    After every epoch the state goes to ``out`` + ``.resume``; the same call continues from there.
    On a GPU the forward pass runs in bfloat16; on a CPU in float32.

    Args:
        data: the images; the test split is used once, after the last epoch.
        checkpoint_config: network shape, normalisation, names.
        config: how to train.
        out: folder to write.
        init: start from these weights rather than from random ones.
        device: torch device, the GPU if there is one when ``None``.
        dtype: weights are rounded to this type before the final evaluation, and saved so.
        on_progress: called every few steps and at the end of every epoch.

    Raises:
        InputError: the data does not fit the network, the state to resume from belongs to another
            run, or the loss stopped being a number.
    """
    check_target(out)
    height, width, channels = data.image_shape
    shape = checkpoint_config.model
    if (height, width, channels) != (shape.image_size, shape.image_size, shape.in_channels):
        raise InputError(
            f"{data.name} has images of {height}×{width}×{channels}, the model takes "
            f"{shape.image_size}×{shape.image_size}×{shape.in_channels}"
        )
    if len(data.class_names) != shape.num_classes:
        raise InputError(f"{data.name} has {len(data.class_names)} classes, the model has {shape.num_classes} outputs")
    try:
        weights = prefix_weights(shape.num_branches, config.prefix_weights)
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=torch_device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"torch has no device {device!r} here: {str(error).splitlines()[0]}") from error
    torch.manual_seed(config.seed)
    model = ParaFormer(shape)
    if init is not None:
        if init.config.model != shape:
            raise InputError(f"the checkpoint to start from is {init.config.model}, this run trains {shape}")
        model.load_state_dict(init.model.state_dict())
    model = model.to(torch_device)
    optimizer = torch.optim.AdamW(_parameter_groups(model, config.weight_decay), lr=config.learning_rate)
    weights = weights.to(torch_device)
    previous = init.training if init is not None else None
    # Path: "out/" is "out"
    resume = _ResumeFile(Path(f"{Path(out)}.resume"), [checkpoint_config, config, previous])
    state = resume.load(model, optimizer)

    images = torch.from_numpy(data.train.images).to(torch_device)
    labels = torch.from_numpy(data.train.labels).to(torch_device)
    steps_per_epoch = math.ceil(len(images) / config.batch_size)
    for epoch in range(state.epochs_done, config.epochs):
        started = time.monotonic()
        model.train()
        meter = _Meter(shape.num_branches)
        for step, (batch, target) in enumerate(training_batches(images, labels, config, epoch)):
            rate = _learning_rate(config, epoch + step / steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(torch_device.type, torch.bfloat16, enabled=torch_device.type == "cuda"):
                prefix_logits = model.prefix_logits(normalise(batch, shape))
            loss = progressive_loss(prefix_logits, target, weights, config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            meter.add(loss.detach(), prefix_logits.detach(), target)
            if step % _REPORT_STEPS and step + 1 < steps_per_epoch:
                continue
            if not math.isfinite(meter.loss):
                raise InputError(
                    f"the loss became {meter.loss} in epoch {epoch + 1}; lower --learning-rate "
                    f"(now {config.learning_rate}) and start again without {resume.path}"
                )
            on_progress(TrainingProgress(epoch, step, steps_per_epoch, meter.loss, meter.prefix_accuracy, rate))
        state = _RunState(epoch + 1, state.train_seconds + time.monotonic() - started, meter.loss)
        resume.save(model, optimizer, state)

    with torch.no_grad():  # what is evaluated is exactly what is saved
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(dtype).float())
    model = model.cpu().eval()
    evaluation = evaluate_model(model, data.test)
    record = TrainingRecord(
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        seed=config.seed,
        epochs=config.epochs,
        settings=msgspec.to_builtins(config),
        hardware=_hardware(torch_device),
        torch_version=str(torch.__version__),
        train_seconds=round(state.train_seconds, 1),
        final_train_loss=round(state.loss, 6),
        num_test_samples=len(data.test),
        prefix_accuracy=evaluation.prefix_accuracy(),
        previous=previous,
    )
    samples = data.test.balanced_sample(NUM_SAMPLES, seed=0)
    checkpoint = Checkpoint(checkpoint_config, model, record, samples, evaluation)
    save_checkpoint(checkpoint, out, dtype=dtype)
    resume.path.unlink(missing_ok=True)
    return checkpoint


@dataclass(frozen=True)
class _RunState:
    epochs_done: int
    train_seconds: float
    loss: float


class _ResumeFile:
    """State after the last whole epoch. Written by torch, read back with ``weights_only``: nothing runs."""

    def __init__(self, path: Path, run: list[msgspec.Struct | None]) -> None:
        self.path = path
        self._run = msgspec.json.encode(run).decode()

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: _RunState) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(self.path) as building:
            torch.save(
                {
                    "run": self._run,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "state": [state.epochs_done, state.train_seconds, state.loss],
                },
                building,
            )

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> _RunState:
        if not self.path.exists():
            return _RunState(0, 0.0, math.nan)
        try:
            stored = torch.load(self.path, map_location=next(model.parameters()).device, weights_only=True)
            if stored["run"] != self._run:
                raise InputError(
                    f"{self.path} belongs to a run with other settings; use the same ones to "
                    "continue it, or delete it to start again"
                )
            model.load_state_dict(stored["model"])
            optimizer.load_state_dict(stored["optimizer"])
            return _RunState(*stored["state"])
        except InputError:
            raise
        except Exception as error:  # torch.load raises many kinds for a damaged file
            raise InputError(f"{self.path} is damaged ({type(error).__name__}); delete it to start again") from error


class _Meter:
    """Running means over an epoch, kept on the device until somebody reads them."""

    def __init__(self, num_branches: int) -> None:
        self._count = 0
        self._steps = 0
        self._loss: Tensor | float = 0.0
        self._correct: Tensor | float = 0.0
        self._num_branches = num_branches

    def add(self, loss: Tensor, prefix_logits: Tensor, labels: Tensor) -> None:
        self._steps += 1
        self._count += len(labels)
        self._loss = self._loss + loss
        self._correct = self._correct + (prefix_logits.argmax(dim=2) == labels).sum(dim=1)

    @property
    def loss(self) -> float:
        return float(self._loss) / max(self._steps, 1)

    @property
    def prefix_accuracy(self) -> tuple[float, ...]:
        assert isinstance(self._correct, Tensor)
        return tuple((self._correct / self._count).tolist())


def _learning_rate(config: TrainingConfig, epoch: float) -> float:
    if epoch < config.warmup_epochs:
        return config.learning_rate * min(max(epoch, 1e-2) / config.warmup_epochs, 1.0)
    done = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and name != "stem.positions"
        (decayed if is_matrix else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
