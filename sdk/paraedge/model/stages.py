"""What is known of pretrained trunks without torch: what comes out after each stage, and how images are normalised."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["STAGES", "BackboneStages"]


@dataclass(frozen=True)
class BackboneStages:
    """A pretrained network as a stem sees it; stages count from 1.

    Attributes:
        channels: after each stage.
        strides: after each stage, pixels per cell along one side.
        mean, std: of the images it was trained on: it reads ``(x / 255 - mean) / std``.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


STAGES: dict[str, BackboneStages] = {
    "efficientnet-lite0": BackboneStages(
        channels=(16, 24, 40, 80, 112, 192, 320),
        strides=(2, 4, 8, 16, 16, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
}
