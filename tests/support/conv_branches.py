"""A branch model without a Transformer: a convolutional stem and small convolutional branches."""

import torch
from torch import nn

from paraedge_runtime.manifest import ImageInput


class ConvBranch(nn.Module):
    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.head = nn.Linear(channels, num_outputs, bias=False)

    def forward(self, x):
        # keepdim: XNNPACK takes a mean over pixels in this form only
        return self.head(self.body(x).mean(dim=(2, 3), keepdim=True).flatten(1))


class ConvBranches(nn.Module):
    """Random weights, but BatchNorm statistics that are not the identity, so folding is tested."""

    def __init__(self, image_size: int = 28, in_channels: int = 1, num_outputs: int = 10, num_branches: int = 3):
        super().__init__()
        torch.manual_seed(7)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.branches = nn.ModuleList(ConvBranch(12, num_outputs) for _ in range(num_branches))
        self.num_outputs = num_outputs
        self.input_spec = ImageInput(
            name="image",
            shape=(1, in_channels, image_size, image_size),
            mean=(0.3,) * in_channels,
            std=(0.4,) * in_channels,
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
