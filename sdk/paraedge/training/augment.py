"""Random changes of whole uint8 batches: crops, turns, flips, colours, erasing, mixup and cutmix.

Letters in shape comments: B images of H×W pixels with c channels, C classes. The images may be on a GPU; random numbers
are drawn on the CPU, the same for both.

Each is a few lines of torch: torchvision's draw once for the whole batch, where these draw for every image, and
torchvision's wheels load only beside the build of torch they were made for.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from paraedge.training.config import TrainingConfig

__all__ = ["augment", "erase", "mix"]

# Share of the image that erasing takes, and the ratio of the rectangle's sides at most.
_ERASED_AREA = (0.02, 0.25)
_ERASED_ASPECT = 3.0
# The ratio of a crop's sides at most.
_CROP_ASPECT = 4 / 3


def augment(images: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """What one image alone decides: crop, turn, flip, colours, erasing. uint8 (B, H, W, c) -> the same."""
    if config.crop_padding:
        images = _crop(images, config.crop_padding, generator)
    if config.crop_area < 1 or config.rotation_degrees:
        images = _view(images, config, generator)
    if config.horizontal_flip:
        flip = torch.rand(len(images), generator=generator).to(images.device) < 0.5
        images = torch.where(flip[:, None, None, None], images.flip(2), images)
    if config.colour_jitter:
        images = _jitter(images, config.colour_jitter, generator)
    if config.erasing_probability:
        images = erase(images, config.erasing_probability, generator)
    return images


def mix(
    images: Tensor, labels: Tensor, num_classes: int, config: TrainingConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mixup (arXiv 1710.09412) or cutmix (arXiv 1905.04899) of every image with the one before it.

    Args:
        images: uint8 (B, H, W, c), in random order; or float32 (B, c, T), of which pairs are never cut, only mixed.
        labels: (B,) class indices.
        num_classes: C.
        config: which of the two, how strongly, how often.
        generator: decides.

    Returns:
        The images, of the same shape and type, and their targets, float32 (B, C) that sum to 1.
    """
    targets = F.one_hot(labels, num_classes).float()
    kinds = [
        (kind, alpha)
        for kind, alpha in ((_mixup, config.mixup_alpha), (_cutmix, config.cutmix_alpha))
        if alpha > 0 and (images.ndim == 4 or kind is _mixup)
    ]
    if not kinds or torch.rand((), generator=generator) >= config.mix_probability:
        return images, targets
    kind, alpha = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    share = _beta(alpha, generator)
    images, share = kind(images, share, generator)
    return images, share * targets + (1.0 - share) * targets.roll(1, 0)


def _crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator).to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[1] + torch.arange(width, device=images.device)  # (B, W)
    return padded[torch.arange(count, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _view(images: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """A part of every image, perhaps turned, scaled to the whole; beyond the edges the image is mirrored."""
    area, aspect, across, down, turn = torch.rand(5, len(images), generator=generator).to(images.device)
    side = (config.crop_area + area * (1 - config.crop_area)).sqrt()
    stretch = _CROP_ASPECT ** (aspect - 0.5)
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)  # shares of the image's sides
    angle = torch.deg2rad((2 * turn - 1) * config.rotation_degrees)
    cosine, sine = angle.cos(), angle.sin()
    transform = torch.stack(  # (B, 2, 3): where in the image, from -1 to 1, a pixel of the result comes from
        [
            torch.stack([width * cosine, -height * sine, (2 * across - 1) * (1 - width)], dim=1),
            torch.stack([width * sine, height * cosine, (2 * down - 1) * (1 - height)], dim=1),
        ],
        dim=1,
    )
    planes = images.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(transform, list(planes.shape), align_corners=False)
    views = F.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)
    return views.round().to(torch.uint8).permute(0, 2, 3, 1)


def _jitter(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast around the image's mean grey, saturation around each pixel's."""
    drawn = torch.rand(3, len(images), 1, 1, 1, generator=generator).to(images.device)
    factors = 1 + share * (2 * drawn - 1)
    pixels = images.float() * factors[0]
    pixels = torch.lerp(pixels.mean(dim=(1, 2, 3), keepdim=True), pixels, factors[1])
    pixels = torch.lerp(pixels.mean(dim=3, keepdim=True), pixels, factors[2])
    return pixels.round().clamp(0, 255).to(torch.uint8)


def erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Random erasing (arXiv 1708.04896) with random pixels."""
    count, height, width, channels = images.shape
    chosen, area, aspect, top, left = torch.rand(5, count, generator=generator).to(images.device)
    area = (_ERASED_AREA[0] + area * (_ERASED_AREA[1] - _ERASED_AREA[0])) * height * width
    aspect = _ERASED_ASPECT ** (2 * aspect - 1)  # of height to width, evenly in its logarithm
    rows = _inside(top, (area * aspect).sqrt(), height)  # (B, H)
    columns = _inside(left, (area / aspect).sqrt(), width)  # (B, W)
    erased = rows[:, :, None] & columns[:, None, :] & (chosen < probability)[:, None, None]  # (B, H, W)
    noise = torch.randint(256, (count, height, width, channels), generator=generator, dtype=torch.uint8)
    noise = noise.to(images.device)
    return torch.where(erased[..., None], noise, images)


def _inside(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Which of ``size`` positions lie in a stretch of ``length`` that starts at a share of what it leaves free."""
    length = length.round().clamp(1, size)
    start = (start * (size - length + 1)).floor()
    positions = torch.arange(size, device=start.device)
    return (positions >= start[:, None]) & (positions < (start + length)[:, None])  # (B, size)


def _mixup(images: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, float]:
    mixed = torch.lerp(images.roll(1, 0).float(), images.float(), share)
    return mixed if images.is_floating_point() else mixed.round().to(torch.uint8), share


def _cutmix(images: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, float]:
    height, width = images.shape[1:3]
    side = (1.0 - share) ** 0.5
    centre = torch.rand(2, generator=generator).tolist()
    top, bottom = (_clip(centre[0] + sign * side / 2, height) for sign in (-1, 1))
    left, right = (_clip(centre[1] + sign * side / 2, width) for sign in (-1, 1))
    mixed = images.clone()
    mixed[:, top:bottom, left:right] = images.roll(1, 0)[:, top:bottom, left:right]
    return mixed, 1.0 - (bottom - top) * (right - left) / (height * width)


def _clip(share: float, size: int) -> int:
    return min(max(round(share * size), 0), size)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha); torch's own takes no generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))
