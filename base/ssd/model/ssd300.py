"""SSD300: a backbone, five extra blocks that shrink its feature map, and two heads on each of the six maps.

One head of a map predicts locations, the other classes. They are computed one by one, or together as one convolution
whose channels suit tensor cores. The network is that of Liu et al. 2016 with the ResNet-34
backbone of the MLPerf benchmark. Extra blocks and heads have biases and no batch norm, and the first map is not
L2-normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssd.model.resnet import ResNet34Trunk, scaled

__all__ = ["SSD300", "HeadLayout"]

HeadLayout = Literal["separate", "joint"]
"""How the heads are computed: each by itself, or the two of a map as one padded convolution."""

EXTRAS = ((256, 512, 2, 1), (256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))
"""For each extra block: its inner channels, its output channels, and stride and padding of its 3x3 convolution.

The output maps of the blocks have 19, 10, 5, 3 and 1 cells on a side.
"""
BOXES_PER_CELL = (4, 6, 6, 6, 4, 4)
"""Default boxes at each cell of the six maps. boxes.py has the same numbers, and a test compares the two."""
CHANNELS_MULTIPLE = 64
"""Channels of a joint head are padded to a multiple of this: 340 and 510 become 384 and 512. Rows of the output then
begin at multiples of 128 bytes in half precision. Tensor cores need 16, which 324 and 486 channels do not have."""


class SSD300(nn.Module):
    """The detector. Its parts are `trunk` (the backbone), `extras`, `location_heads` and `class_heads`.

    num_classes: number of classes, background included. width: multiplier of the number of channels. Values other than
    1 are for demos and tests. in_channels: 3, or 4 where the input is padded with a channel of zeros. head_layout: how
    the heads are computed. Weights and their names are the same in both layouts.
    The weights are drawn from torch's global generator, which `build_model` seeds.
    """

    def __init__(
        self, num_classes: int = 81, width: float = 1.0, in_channels: int = 3, head_layout: HeadLayout = "separate"
    ) -> None:
        super().__init__()
        self.head_layout = head_layout
        self.num_classes = num_classes
        self.width = width
        self.trunk = ResNet34Trunk(width, in_channels)
        channels = [self.trunk.channels]
        self.extras = nn.ModuleList()
        for inside, outside, stride, padding in EXTRAS:
            block = _extra_block(channels[-1], scaled(inside, width), scaled(outside, width), stride, padding)
            self.extras.append(block)
            channels.append(scaled(outside, width))
        self.location_heads = _heads(channels, 4)
        self.class_heads = _heads(channels, num_classes)
        for part in (self.extras, self.location_heads, self.class_heads):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight)

    def source_maps(self, images: Tensor) -> list[Tensor]:
        """Turn images (B, in_channels, 300, 300) into the six feature maps (B, channels, n, n).

        n is 38, 19, 10, 5, 3 and 1. dtype: float32, or autocast's.
        """
        maps = [self.trunk(images)]
        for block in self.extras:
            maps.append(block(maps[-1]))
        return maps

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn images (B, in_channels, 300, 300) into locations (B, 4, D) and logits (B, num_classes, D), D = 8,732.

        Images may have any memory format. The outputs are float32, or have autocast's dtype under autocast. D is
        ordered by map, shape, row and column, as in boxes.py.
        """
        maps = self.source_maps(images)
        heads = list(zip(self.location_heads, self.class_heads, maps, strict=True))
        if self.head_layout == "joint":
            outputs = [_jointly(location, label, features) for location, label, features in heads]
        else:
            outputs = [(location(features), label(features)) for location, label, features in heads]
        locations, logits = zip(*outputs, strict=True)
        return _joined(locations, 4), _joined(logits, self.num_classes)


def _extra_block(channels_in: int, inside: int, outside: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, inside, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(inside, outside, 3, stride, padding),
        nn.ReLU(inplace=True),
    )


def _heads(channels: list[int], components: int) -> nn.ModuleList:
    pairs = zip(channels, BOXES_PER_CELL, strict=True)
    return nn.ModuleList(nn.Conv2d(width, components * boxes, 3, padding=1) for width, boxes in pairs)


def _jointly(location: nn.Module, label: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Both heads of a map, as one convolution whose channels are padded with zeros to CHANNELS_MULTIPLE.

    The outputs are those of the heads by themselves. In backward the gradients of the features are summed by that
    convolution, in another order.
    """
    assert isinstance(location, nn.Conv2d)
    assert isinstance(label, nn.Conv2d)
    sizes = (location.out_channels, label.out_channels)
    padding = -sum(sizes) % CHANNELS_MULTIPLE
    weight = functional.pad(torch.cat((location.weight, label.weight)), (0, 0, 0, 0, 0, 0, 0, padding))
    assert location.bias is not None
    assert label.bias is not None
    bias = functional.pad(torch.cat((location.bias, label.bias)), (0, padding))
    both = functional.conv2d(features, weight, bias, padding=location.padding)
    # split and not slices: its backward pass joins the parts once, where each slice would fill a whole tensor.
    locations, logits, _ = both.split((*sizes, padding), dim=1)
    return locations, logits


def _joined(outputs: Sequence[Tensor], components: int) -> Tensor:
    """The outputs (B, components * boxes, n, n) of a kind of heads, joined: (B, components, D).

    The channels of a head are ordered by component, then by box of the cell.
    """
    # reshape and not view, because a channels-last output has to be copied.
    return torch.cat([output.reshape(output.shape[0], components, -1) for output in outputs], dim=2)
