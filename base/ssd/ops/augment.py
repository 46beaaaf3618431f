"""From decoded pixels to the network's input: mirror, colour jitter, normalise, choose layout and precision.

Contract of the op `augment`. See `ssd.ops` for the letters.

Every image has its own random order of the four colour operations, and on a device no step branches on that order.
Brightness, contrast and saturation are each a blend of the image with another image: black, a uniform grey, or the
grey version of the image. A blend with weight 1 leaves the image as it is, so it is a no-op. Three blends, then the
hue, then three blends more contain every order of the four, if those that do not apply get weight 1. The hue, which is
costly, is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MEAN", "STD", "ColourDraws", "augment"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels in 0..1: red, green, blue. The pretrained backbone expects them."""

GREY = (0.2989, 0.587, 0.114)
"""Luma weights of red, green and blue, with the four digits that torchvision uses."""
ONE_BY_ONE = ("cpu",)
"""Device types whose values the host can read for nothing: there images are processed one at a time."""
CONTRAST, SATURATION, HUE = 1, 2, 3
"""Indices of three operations in `ColourDraws.factors`. Index 0 is brightness."""


@dataclass(frozen=True)
class ColourDraws:
    """The random numbers of each image of a batch. The loader draws them, and `augment` applies them.

    flip: (B,) bool, whether to mirror left to right. The loader has mirrored the boxes of the batch already.
    factors: (B, 4) float32: the factor of brightness, the blend weights of contrast and saturation, and the turn of
    the hue (1 is a full circle; drawn from -0.5..0.5).
    order: (B, 4) int64. order[b, r] is the index in `factors` of the operation that image b gets in round r.
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
    """Turn images (B, H, W, 3) uint8 into the network's input (B, channels, H, W) `dtype`.

    draws: the mirror and jitter of each image. None only normalises, which evaluation uses. channels: 3, or 4 for a
    fourth channel of zeros. The jitter is torchvision's ColorJitter on values in 0..1, clamped after each operation.
    The memory format is channels_last if asked for, else contiguous. The arithmetic is float32. Nothing is copied
    between host and device, so a CUDA graph can capture it. On a CPU images are processed one at a time, and only what
    was drawn is computed: the same numbers, to the bit, in a third of the time.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (images.shape[0], channels, *images.shape[1:3])
    output = torch.empty(shape, dtype=dtype, device=images.device, memory_format=layout)
    output[:, 3:] = 0
    if images.device.type in ONE_BY_ONE:
        _one_by_one(images, draws, output)
        return output
    x = _as_floats(images)
    if draws is not None:
        # A weight of 0 or 1 gives exactly one of the two images. On a CPU this is three times as fast as torch.where.
        x.lerp_(x.flip(3), draws.flip.float().view(-1, 1, 1, 1))
        _jitter(x, draws.factors, draws.order)
    output[:, :3] = _normalised(x)
    return output


def _as_floats(images: Tensor) -> Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, H, W) float32 in 0..1."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _normalised(x: Tensor) -> Tensor:
    """Normalise x (B, 3, H, W) float32 in place."""
    for channel, mean, std in zip(x.unbind(1), MEAN, STD, strict=True):
        channel.sub_(mean).div_(std)
    return x


def _one_by_one(images: Tensor, draws: ColourDraws | None, output: Tensor) -> None:
    """The same numbers, to the bit, one image at a time, which fits a CPU's cache. Fills output[:, :3]."""
    factors, orders, flips = (draws.factors, draws.order.tolist(), draws.flip.tolist()) if draws else (None, (), ())
    for place in range(len(images)):
        x = _as_floats(images[place : place + 1])
        if factors is not None:
            x = x.flip(3) if flips[place] else x
            for operation in orders[place]:
                _apply(x, operation, factors[place, operation], len(images))
        output[place, :3] = _normalised(x)[0]


def _apply(x: Tensor, operation: int, factor: Tensor, batch: int) -> None:
    """Apply one operation to x (1, 3, H, W) float32 in place. factor: () float32. batch: images of the whole batch."""
    if operation == HUE:
        _turn_hue(x, factor.view(1))
        return
    x_of_factor = x * factor if operation in (CONTRAST, SATURATION) else x.mul_(factor)
    if operation == CONTRAST:
        # torch adds up a single row with all its threads, and rounds otherwise than for one row of many.
        mean = _grey(x).expand(min(batch, 2), -1, -1).mean(dim=(1, 2))[0]
        x_of_factor.add_((1 - factor) * mean)
    elif operation == SATURATION:
        x_of_factor.add_(_grey(x).mul_(1 - factor).unsqueeze(1))
    torch.clamp(x_of_factor, 0, 1, out=x)


def _grey(x: Tensor) -> Tensor:
    """The luma (B, H, W) of x (B, 3, H, W) float32."""
    red, green, blue = x.unbind(1)
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def _jitter(x: Tensor, factors: Tensor, order: Tensor) -> None:
    """Apply the four operations to x (B, 3, H, W) float32 in 0..1, in place, each image in its own order."""
    hue_round = (order == HUE).int().argmax(dim=1)
    for step in range(3):
        _blend(x, factors, order[:, step], step < hue_round)
    _turn_hue(x, factors[:, HUE])
    for step in range(1, 4):
        _blend(x, factors, order[:, step], step > hue_round)


def _blend(x: Tensor, factors: Tensor, operation: Tensor, now: Tensor) -> None:
    """Blend each image of x (B, 3, H, W) float32 in place: x = clamp(f * x + (1 - f) * other).

    operation: (B,) int64, chooses f (a column of factors, (B, 4) float32) and `other`. That is black for brightness, a
    uniform image of the mean grey for contrast, and the grey image for saturation. now: (B,) bool. An image for which
    it is false keeps its values, because its f is 1.
    """
    factor = torch.where(now, factors.gather(1, operation.unsqueeze(1)).squeeze(1), 1.0)
    grey = _grey(x)
    of_mean = (1 - factor) * (operation == CONTRAST) * grey.mean(dim=(1, 2))
    of_grey = (1 - factor) * (operation == SATURATION)
    other = grey.mul_(of_grey.view(-1, 1, 1)).add_(of_mean.view(-1, 1, 1))
    x.mul_(factor.view(-1, 1, 1, 1)).add_(other.unsqueeze(1)).clamp_(0, 1)


def _turn_hue(x: Tensor, turns: Tensor) -> None:
    """Shift the hue of x (B, 3, H, W) float32 by turns (B,) float32, in place. HSV's saturation and value stay.

    With value v, chroma c and hue h in sixths of a turn, a channel is v where h is within 1 of the channel's own place
    on the circle (red 0, green 2, blue 4). It is v - c where h is 2 or more away, and linear between. Written as a
    distance from the opposite place on the circle, the formula is the same for all six sectors.
    """
    red, green, blue = x.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # The hue is measured from the largest channel. The sign of (value - channel) is 0 for that channel and 1 for the
    # others, so it serves as the weight of lerp. On a CPU this is five times as fast as torch.where.
    hue = (red - green).add_(chroma, alpha=4)
    hue = torch.lerp((blue - red).add_(chroma, alpha=2), hue, (value - green).sign_())
    hue = torch.lerp(green - blue, hue, (value - red).sign_())
    hue.div_(chroma.clamp(min=1e-12)).div_(6).add_(turns.view(-1, 1, 1))
    hue.sub_(hue.floor()).mul_(6)
    for channel, opposite in zip((red, green, blue), (3, 5, 1), strict=True):
        # | |h - o| - 3 | is 3 minus the distance on the circle. Where it is below 1, the channel has the full value.
        lowered = (hue - opposite).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
        torch.sub(value, lowered.mul_(chroma), out=channel)
