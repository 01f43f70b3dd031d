"""A wide residual network (arXiv 1605.07146) for small images, with its layers in the order of arXiv 1603.05027.

Letters in shape comments: B images, C classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class WideBlock(nn.Module):
    """Norm, ReLU, convolution, twice, beside a skip connection: (B, width_in, H, W) -> (B, width, H/s, W/s)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width_in), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(width_in, width, 1, stride, bias=False) if width_in != width else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        if self.skip is not None:
            x = self.skip(y)
        return x + self.conv2(F.relu(self.norm2(self.conv1(y))))  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """WRN-``depth``-``factor``: images (B, channels, H, W) -> logits (B, C). Depth is 4 more than a multiple of 6."""

    def __init__(self, depth: int, factor: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        count, rest = divmod(depth - 4, 6)
        if rest or count < 1:
            raise ValueError(f"depth cannot be {depth}; 4 more than a multiple of 6")
        widths = [16, 16 * factor, 32 * factor, 64 * factor]
        self.first = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            *(
                WideBlock(widths[stage] if number == 0 else width, width, 2 if stage and number == 0 else 1)
                for stage, width in enumerate(widths[1:])
                for number in range(count)
            )
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.classifier = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.blocks(self.first(images))))
        return self.classifier(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]
