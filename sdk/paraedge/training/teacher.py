"""A teacher: a trained network, of any architecture, whose predictions for the augmented images become targets.

Letters in shape comments: B images of H×W pixels with c channels, C classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paraedge.training.batches import normalise

__all__ = ["Teacher"]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that knows the classes of the data, and how it wants its images.

    Attributes:
        network: images (B, c, H, W), normalised -> logits (B, C).
        mean, std: one value per channel; ``network`` reads ``(x / 255 - mean) / std``.
    """

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def ready(self, device: torch.device) -> Teacher:
        """On ``device``, in eval mode, learning nothing more."""
        self.network.to(device).eval().requires_grad_(False)
        return self

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, c) -> float32 (B, C), without a gradient."""
        with torch.no_grad():
            logits: Tensor = self.network(normalise(images, self)).float()
        return logits

    def digest(self) -> str:
        """Of the weights: another teacher has another one."""
        digest = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
