"""From decoded pixels to the network's input: mirror, colour jitter, normalise, choose layout and precision.

Contract of the op `augment`. See `ssd.ops` for the letters.

Every image has its own order of the four colour operations, and no step here branches on it. Brightness, contrast and
saturation are all blends of the image with something grey, so a blend whose weight is 1 is "not now": three blends, the
hue, three blends more hold every order, and the costly hue is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MEAN", "STD", "ColourDraws", "augment"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in 0..1, red, green, blue: what the pretrained trunk was trained with."""

GREY = (0.2989, 0.587, 0.114)
"""Luma weights of red, green, blue, to torchvision's four digits."""
CONTRAST, SATURATION, HUE = 1, 2, 3
"""Columns of `ColourDraws.factors`; column 0 is brightness."""


@dataclass(frozen=True)
class ColourDraws:
    """What was drawn for each image of a batch; made by the loader, consumed by `augment`.

    flip: (B,) bool, mirror left to right. Boxes of the batch are mirrored already.
    factors: (B, 4) float32, brightness (multiplies), contrast, saturation (blend weights), hue (turns, -0.5..0.5).
    order: (B, 4) int64, order[b, r] = index into `factors` of the operation applied in round r.
    """

    flip: Tensor
    factors: Tensor
    order: Tensor


def augment(
    images: Tensor,
    draws: ColourDraws | None,
    *,
    dtype: torch.dtype = torch.float32,
    channels: int = 3,
    channels_last: bool = False,
) -> Tensor:
    """Turn images (B, H, W, 3) uint8 into (B, channels, H, W) `dtype`; `draws=None` only normalises (evaluation).

    The jitter is torchvision's ColorJitter on values in 0..1, clamped after each operation. A fourth channel is zero.
    Memory format is channels_last where asked, else contiguous. Computed in float32. Nothing is
    read back to the host or copied from it: it can be captured in a graph.
    """
    x = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    if draws is not None:
        # Weights 0 and 1 give exactly the one or the other image, three times as fast on a CPU as a selection.
        x.lerp_(x.flip(3), draws.flip.float().view(-1, 1, 1, 1))
        _jitter(x, draws.factors, draws.order)
    for channel, mean, std in zip(x.unbind(1), MEAN, STD, strict=True):
        channel.sub_(mean).div_(std)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (x.shape[0], channels, *x.shape[2:])
    output = torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout)
    output[:, :3] = x
    output[:, 3:] = 0
    return output


def _jitter(x: Tensor, factors: Tensor, order: Tensor) -> None:
    """Apply the four operations to x (B, 3, H, W) float32 in 0..1, in place, each image in its own order."""
    hue_round = (order == HUE).int().argmax(dim=1)
    for step in range(3):
        _blend(x, factors, order[:, step], step < hue_round)
    _turn_hue(x, factors[:, HUE])
    for step in range(1, 4):
        _blend(x, factors, order[:, step], step > hue_round)


def _blend(x: Tensor, factors: Tensor, operation: Tensor, now: Tensor) -> None:
    """x = clamp(f * x + (1 - f) * other), in place; other is black, mean grey or the grey image by `operation` (B,).

    Images whose `now` (B,) bool is false keep their values: f is 1.
    """
    factor = torch.where(now, factors.gather(1, operation.unsqueeze(1)).squeeze(1), 1.0)
    red, green, blue = x.unbind(1)
    grey = (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    of_mean = (1 - factor) * (operation == CONTRAST) * grey.mean(dim=(1, 2))
    of_grey = (1 - factor) * (operation == SATURATION)
    other = grey.mul_(of_grey.view(-1, 1, 1)).add_(of_mean.view(-1, 1, 1))
    x.mul_(factor.view(-1, 1, 1, 1)).add_(other.unsqueeze(1)).clamp_(0, 1)


def _turn_hue(x: Tensor, turns: Tensor) -> None:
    """Turn the hue of x (B, 3, H, W) by turns (B,), in place; saturation and value of HSV stay.

    With value v, chroma c and hue h in sixths of a turn, a channel is v where h is within 1 of its own place on the
    circle (red 0, green 2, blue 4), v - c where it is 2 away or more, and linear between. Written as a distance from
    the opposite place, it needs no case by sector.
    """
    red, green, blue = x.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # The hue is measured from the largest channel; the sign is 0 where that is it, else 1. Five times as fast on a CPU
    # as torch.where, which branches on every pixel.
    hue = (red - green).add_(chroma, alpha=4)
    hue = torch.lerp((blue - red).add_(chroma, alpha=2), hue, (value - green).sign_())
    hue = torch.lerp(green - blue, hue, (value - red).sign_())
    hue.div_(chroma.clamp(min=1e-12)).div_(6).add_(turns.view(-1, 1, 1))
    hue.sub_(hue.floor()).mul_(6)
    for channel, opposite in zip((red, green, blue), (3, 5, 1), strict=True):
        # | |h - o| - 3 | is 3 less the distance on the circle; below 1 the channel is at full value.
        lowered = (hue - opposite).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
        torch.sub(value, lowered.mul_(chroma), out=channel)
