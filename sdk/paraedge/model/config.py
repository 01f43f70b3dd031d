"""The frozen description of a ParaFormer: everything needed to rebuild the network, nothing about training."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from paraedge.model.signals import Signal
from paraedge.model.stages import STAGES, BackboneStages
from paraedge_runtime.manifest import ImageInput, InputSpec, TensorInput

__all__ = ["ParaFormerConfig"]

# Far above what anybody trains, and an end to what a damaged config.json can ask for.
_MOST = {
    "image_size": 16_384,
    "in_channels": 1024,
    "num_classes": 1_000_000,
    "embed_dim": 65_536,
    "num_heads": 65_536,
    "mlp_ratio": 1000.0,
    "num_branches": 1000,
    "branch_depth": 1000,
    "stem_stride": 16_384,
    "stem_width": 65_536,
    "stem_residual_blocks": 1000,
    "branch_width": 65_536,
    "branch_residual_blocks": 1000,
}


class ParaFormerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape of a ParaFormer (arXiv 2510.15425; see ``docs/model.md`` for what differs from the paper).

    Attributes:
        image_size: height and width of the square input, in pixels; 0 with ``signal``.
        in_channels: usually 1 (grey) or 3 (colour); with ``signal``, its number of channels.
        signal: set for sound or motion: the input is samples over time instead of an image.
        num_classes: length of the logits.
        embed_dim: token width D.
        num_heads: attention heads h; must divide ``embed_dim``.
        mlp_ratio: hidden width of each MLP divided by ``embed_dim``.
        num_branches: branches that stand side by side.
        branch_depth: Transformer blocks per branch, one number for all or one for each; the last block of a
            branch computes the CLS row only.
        stem_stride: pixels per token along one side, a power of two that divides ``image_size``.
        stem_width: channels of the stem's last stage, half as many in each stage before it; ``embed_dim``
            when ``None``. The stem runs before every branch, so its cost is part of every prediction.
        stem_residual_blocks: residual blocks (two 3×3 convolutions) at the end of each stem stage.
        branch_width: give every branch its own last stage of convolutions, with this many channels (one number for
            all branches, or one for each), instead of sharing that stage in the stem.
        branch_residual_blocks: residual blocks at the end of the branches' own stages.
        branch_classes: number of classes that each branch knows. An older branch may know only the first ones, and
            adds 0 to the logits of the others. ``None``: every branch knows all classes.
        backbone: pretrained network whose first stages are the stem, a key of ``STAGES``; the ``stem_…`` fields are
            then ignored. A branch's own convolutions halve the side until a token covers one cell of the backbone's
            last stage.
        backbone_stage: last stage of the backbone that belongs to the stem.
        branch_stage: every branch continues with its own copy of the pretrained stages up to this one; one number for
            all branches, or one for each; ``None`` for no such stages.
        resize: how an image of another size becomes square: ``stretch`` or ``crop``, see
            :class:`paraedge_runtime.manifest.ImageInput`.
        mean, std: one value per channel; the network reads ``(x / 255 - mean) / std``; of a signal,
            ``(x - mean) / std``.
    """

    image_size: int = 0
    in_channels: int
    signal: Signal | None = None
    num_classes: int
    embed_dim: int = 192
    num_heads: int = 3
    mlp_ratio: float = 4.0
    num_branches: int = 8
    branch_depth: int | tuple[int, ...] = 2
    stem_stride: int = 4
    stem_width: int | None = None
    stem_residual_blocks: int = 0
    branch_width: int | tuple[int, ...] | None = None
    branch_residual_blocks: int = 0
    branch_classes: tuple[int, ...] | None = None
    backbone: str | None = None
    backbone_stage: int | None = None
    branch_stage: int | tuple[int, ...] | None = None
    resize: Literal["stretch", "crop"] = "stretch"
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            values = getattr(self, name)
            largest = max(values, default=0) if isinstance(values, tuple) else values
            if largest is not None and most < largest < math.inf:
                raise ValueError(f"{name} must be at most {most}, got {largest}")
        self._check_input()
        for name in (
            "in_channels",
            "num_classes",
            "embed_dim",
            "num_heads",
            "num_branches",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("branch_depth", "branch_width", "branch_stage"):
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) != self.num_branches:
                raise ValueError(f"{name} has {len(values)} values, the model has {self.num_branches} branches")
            if values is not None and min(values if isinstance(values, tuple) else (values,)) < 1:
                raise ValueError(f"{name} must be at least 1, got {values}")
        if self.branch_classes is not None and (
            len(self.branch_classes) != self.num_branches
            or list(self.branch_classes) != sorted(self.branch_classes)
            or self.branch_classes[0] < 1
            or self.branch_classes[-1] != self.num_classes
        ):
            raise ValueError(
                f"branch_classes must be {self.num_branches} values in ascending order (one per branch), the last "
                f"num_classes ({self.num_classes}), got {self.branch_classes}"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != self.in_channels or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} must be {self.in_channels} finite values, one per channel, got {values}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}; "
                f"use embed_dim {self.embed_dim // self.num_heads * self.num_heads or self.num_heads}"
            )
        if not math.isfinite(self.mlp_ratio) or self.mlp_ratio <= 0 or self.mlp_dim < 1:
            raise ValueError(f"mlp_ratio must be finite and positive, got {self.mlp_ratio}")
        if self.backbone is None:
            self._check_stem()
        else:
            self._check_backbone()
        for name in ("stem_residual_blocks", "branch_residual_blocks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.branch_residual_blocks and self.branch_width is None:
            raise ValueError(f"branch_residual_blocks {self.branch_residual_blocks} needs a branch_width")

    def _check_input(self) -> None:
        if self.signal is None:
            if self.image_size < 1:
                raise ValueError(f"image_size must be at least 1, got {self.image_size}")
            return
        if self.image_size or self.backbone is not None:
            raise ValueError("a model that reads signals has neither image_size nor backbone; leave them out")
        if len(self.signal.channel_names) != self.in_channels:
            raise ValueError(
                f"in_channels must be {len(self.signal.channel_names)}, the number of channel_names, "
                f"got {self.in_channels}"
            )

    def _check_stem(self) -> None:
        if self.stem_stride < 2 or self.stem_stride & (self.stem_stride - 1):
            raise ValueError(f"stem_stride must be a power of two of at least 2, got {self.stem_stride}")
        if self.signal is None and self.image_size % self.stem_stride:
            raise ValueError(f"image_size {self.image_size} is not a multiple of stem_stride {self.stem_stride}")
        if self.stem_stages < 1:
            raise ValueError(f"stem_stride must be at least 4 with branch_width, got {self.stem_stride}")
        name, doublings = "embed_dim" if self.stem_width is None else "stem_width", 2 ** (self.stem_stages - 1)
        if self.stem_channels < 1 or self.stem_channels % doublings:
            raise ValueError(
                f"{name} {self.stem_channels} is not a multiple of {doublings}: "
                "the stem doubles its width at every stage"
            )
        for name in ("backbone_stage", "branch_stage"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} {getattr(self, name)} needs a backbone: {', '.join(STAGES)}")

    def _check_backbone(self) -> None:
        if self.backbone not in STAGES:
            raise ValueError(
                f"unknown backbone {self.backbone!r}; choose one of {', '.join(STAGES)}, "
                "or register yours first with paraedge.model.register_backbone"
            )
        count = len(self._stages.channels)
        if self.backbone_stage is None or not 1 <= self.backbone_stage <= count:
            raise ValueError(f"backbone_stage must be 1 to {count} with {self.backbone}, got {self.backbone_stage}")
        if not self.backbone_stage <= min(self.branch_stages) <= max(self.branch_stages) <= count:
            raise ValueError(
                f"branch_stage must be {self.backbone_stage} (backbone_stage) to {count}, got {self.branch_stage}"
            )
        if self.branch_width is None:
            raise ValueError(f"with {self.backbone} every branch needs a branch_width, for convolutions of its own")
        if self.in_channels != (needed := len(self._stages.mean)):
            kind = "in colour" if needed == 3 else f"of {needed} channel(s)"
            raise ValueError(
                f"{self.backbone} reads images {kind}, in_channels must be {needed}, got {self.in_channels}"
            )
        if self.image_size % self.token_stride:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of {self.token_stride}, which {self.backbone} needs"
            )

    @property
    def input_spec(self) -> InputSpec:
        """The normalised input on the device: an image (1, in_channels, H, W), or a signal (1, in_channels, T)."""
        if self.signal is not None:
            return TensorInput(
                name="signal",
                shape=(1, self.in_channels, self.signal.length),
                axes=("channel", "time"),
                normalized_axis="channel",
                mean=self.mean,
                std=self.std,
                rate_hz=self.signal.rate_hz,
                channel_names=self.signal.channel_names,
            )
        shape = (1, self.in_channels, self.image_size, self.image_size)
        return ImageInput(name="image", shape=shape, mean=self.mean, std=self.std, resize=self.resize)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one input in a data set: an image (H, W, in_channels), or a signal (in_channels, T)."""
        if self.signal is not None:
            return (self.in_channels, self.signal.length)
        return (self.image_size, self.image_size, self.in_channels)

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Shape (c, H, W) that the convolutions read: that of the image, or of the signal's map."""
        if self.signal is not None:
            return self.signal.map_shape
        return (self.in_channels, self.image_size, self.image_size)

    @property
    def kernel_rows(self) -> int:
        """Height of the convolution kernels, which are 3 wide; 1 if the map has a single row."""
        return 1 if self.map_shape[1] == 1 else 3

    @property
    def branch_depths(self) -> tuple[int, ...]:
        """Number of blocks in each branch, (N,)."""
        return self.branch_depth if isinstance(self.branch_depth, tuple) else (self.branch_depth,) * self.num_branches

    @property
    def branch_widths(self) -> tuple[int | None, ...]:
        """Channels of each branch's own convolutions, (N,); ``None`` for a branch without them."""
        return self.branch_width if isinstance(self.branch_width, tuple) else (self.branch_width,) * self.num_branches

    @property
    def branch_stages(self) -> tuple[int, ...]:
        """Last backbone stage in each branch, (N,); ``backbone_stage`` for a branch without stages of its own."""
        stages = self.branch_stage or self.backbone_stage or 0
        return stages if isinstance(stages, tuple) else (stages,) * self.num_branches

    @property
    def _stages(self) -> BackboneStages:
        assert self.backbone is not None
        return STAGES[self.backbone]

    @property
    def token_stride(self) -> int:
        """Pixels per token along one side."""
        if self.backbone is None:
            return self.stem_stride
        return max(self._stages.strides)

    @property
    def known_classes(self) -> tuple[int, ...]:
        """Number of classes that each branch knows, (N,)."""
        return self.branch_classes or (self.num_classes,) * self.num_branches

    @property
    def stem_stages(self) -> int:
        """Number of convolution stages in the stem; each halves the side."""
        return self.stem_stride.bit_length() - 1 - (self.branch_width is not None)

    @property
    def branch_convolutions(self) -> tuple[tuple[int, ...], ...]:
        """Channels of each branch's own convolution stages: N tuples of any length."""
        if self.backbone is None:
            return tuple(() if width is None else (width,) for width in self.branch_widths)
        strides = [self._stages.strides[stage - 1] for stage in self.branch_stages]
        counts = [(self.token_stride // stride).bit_length() - 1 for stride in strides]
        return tuple((width or 0,) * count for width, count in zip(self.branch_widths, counts, strict=True))

    @property
    def branch_inputs(self) -> tuple[int, ...]:
        """Channels that each branch's own convolutions read, (N,)."""
        if self.backbone is None:
            return (self.stem_channels,) * self.num_branches
        return tuple(self._stages.channels[stage - 1] for stage in self.branch_stages)

    @property
    def stem_channels(self) -> int:
        """Channels of the stem's last stage."""
        if self.backbone is not None and self.backbone_stage is not None:
            return self._stages.channels[self.backbone_stage - 1]
        return self.embed_dim if self.stem_width is None else self.stem_width

    @property
    def num_tokens(self) -> int:
        """T: one token per stem cell plus the CLS token."""
        _, height, width = self.map_shape
        return -(-height // self.token_stride) * -(-width // self.token_stride) + 1

    @property
    def num_positions(self) -> int:
        """Number of tokens with a learned position: all, or only the CLS token with log-mel.

        A word is the same word later and in a higher voice: learning the positions of a few voices cost 15 points on
        a new one (docs/lab/models.md)."""
        return 1 if self.signal is not None and self.signal.log_mel is not None else self.num_tokens

    @property
    def mlp_dim(self) -> int:
        """Hidden width of each MLP."""
        return round(self.embed_dim * self.mlp_ratio)
