"""A teacher: a trained network, of any architecture, whose predictions for the augmented images become targets.

Letters in shape comments: B images of H×W pixels with c channels, C classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paraedge.data.images import ImageDataset
from paraedge.data.signals import SignalDataset
from paraedge.model.checkpoint import Checkpoint
from paraedge.training.batches import normalise
from paraedge_runtime.errors import InputError

__all__ = ["Teacher", "teacher_for"]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network whose predictions are training targets, and its normalisation.

    Attributes:
        network: images (B, c, H, W), normalised -> logits (B, C).
        mean, std: one value per channel; ``network`` reads ``(x / 255 - mean) / std``.
    """

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def ready(self, device: torch.device) -> Teacher:
        """Move it to ``device``, in eval mode, with its weights frozen."""
        self.network.to(device).eval().requires_grad_(False)
        return self

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, c) -> float32 (B, C), without a gradient."""
        with torch.no_grad():
            logits: Tensor = self.network(normalise(images, self)).float()
        return logits

    def digest(self) -> str:
        """Hash of the weights, to tell teachers apart."""
        digest = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def teacher_for(given: Checkpoint | Teacher | None, data: ImageDataset | SignalDataset) -> Teacher | None:
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
