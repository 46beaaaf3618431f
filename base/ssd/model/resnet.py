"""The backbone: ResNet-34 up to its third stage. That stage has stride 1 here, so 300 pixels become 38 cells.

Parameters have the names that torchvision gives them (`layer2.0.downsample.1.weight`), so a torchvision checkpoint fits
by name. SSD does not use conv5_x (the fourth stage) and the classifier, so they are left out.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["BasicBlock", "ResNet34Trunk", "make_stage", "scaled"]

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 1))
"""Channels, blocks and stride of each stage. ResNet's third stage has stride 2. SSD300 needs a map of 38x38 there."""


def scaled(channels: int, width: float) -> int:
    """The number of channels times the width multiplier, rounded to a multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut that is projected where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Turn features (B, channels_in, H, W) into (B, channels, H / stride, W / stride), rounded up. Any dtype."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet34Trunk(nn.Module):
    """The stem and three stages of ResNet-34. `channels` is the number of output channels, 256 at width 1.

    width: multiplier of all channels. in_channels: 3, or 4 where the input is padded with a channel of zeros.
    """

    def __init__(self, width: float = 1.0, in_channels: int = 3) -> None:
        super().__init__()
        stem = scaled(64, width)
        self.conv1 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages, channels = [], stem
        for base_channels, blocks, stride in STAGES:
            stages.append(make_stage(channels, scaled(base_channels, width), blocks, stride))
            channels = scaled(base_channels, width)
        self.layer1, self.layer2, self.layer3 = stages
        self.channels = channels
        self._initialise()

    def _initialise(self) -> None:
        """Draw the convolutions' weights as torchvision does (He et al. 2015). Batch norm starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # A fourth input channel is padding, which aligns the memory accesses of the stem. It is fed zeros, so its
        # weights get no gradient. They start at zero, so weight decay leaves them at zero too.
        self.conv1.weight.data[:, 3:] = 0

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, in_channels, 300, 300), float32 or autocast's dtype, into features (B, channels, 38, 38)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer3(self.layer2(self.layer1(x)))


def make_stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """One stage of `blocks` blocks with `channels` output channels. Its first block changes channels and resolution."""
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))
