"""Op `augment` in three Triton kernels: uint8 pixels in, network input out, with nothing written in between.

Contrast blends with the mean grey of the image as the operations before it left it. So images are read twice: once for
that mean (partial sums, one a block, added in a fixed order: no atomics), once to do everything and write. A batch of
128 images is 35 MB of uint8, which the L2 cache of an A100 (40 MB) or H100 (50 MB) can keep for the second reading.
`draws=None` reads once. A program works on one image, so the branches below are the same for all its threads.
"""
# Triton derives the types of a kernel's arguments from what it is started with; annotations would mean nothing.
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssd.ops.augment import GREY, MEAN, STD, ColourDraws
from ssd.vendor.triton.launch import INTERPRETED, launch, power_of_2

__all__ = ["augment"]

BLOCK = 2**15 if INTERPRETED else 2**10
"""Pixels of a program."""
RED, GREEN, BLUE = (tl.constexpr(weight) for weight in GREY)


@triton.jit
def _grey(r, g, b):
    """Luma."""
    return RED * r + GREEN * g + BLUE * b


@triton.jit
def _unit(x):
    """Clamp to 0..1."""
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def _hue_channel(v, chroma, sixths, n: tl.constexpr):
    """One channel of an HSV colour: n = 5, 3, 1 is red, green, blue; `sixths` is the hue in sixths of a turn, 0..6."""
    k = sixths + n
    k = tl.where(k >= 6.0, k - 6.0, k)
    return v - chroma * _unit(tl.minimum(k, 4.0 - k))


@triton.jit
def _turn_hue(r, g, b, turns):
    """Rotate the hue by `turns` (-0.5..0.5); grey pixels stay."""
    v = tl.maximum(r, tl.maximum(g, b))
    chroma = v - tl.minimum(r, tl.minimum(g, b))
    some = tl.where(chroma > 0.0, chroma, 1.0)
    sixths = tl.where(v == r, (g - b) / some, tl.where(v == g, 2.0 + (b - r) / some, 4.0 + (r - g) / some))
    sixths = sixths + 6.0 * turns
    sixths = tl.where(sixths < 0.0, sixths + 6.0, sixths)
    sixths = tl.where(sixths >= 6.0, sixths - 6.0, sixths)
    return _hue_channel(v, chroma, sixths, 5), _hue_channel(v, chroma, sixths, 3), _hue_channel(v, chroma, sixths, 1)


@triton.jit
def _apply(r, g, b, operation, factor, mean):
    """One operation on values in 0..1: 0 brightness, 1 contrast, 2 saturation, 3 hue; clamped after it."""
    if operation == 0:
        r, g, b = r * factor, g * factor, b * factor
    elif operation == 1:
        rest = (1.0 - factor) * mean
        r, g, b = factor * r + rest, factor * g + rest, factor * b + rest
    elif operation == 2:
        rest = (1.0 - factor) * _grey(r, g, b)
        r, g, b = factor * r + rest, factor * g + rest, factor * b + rest
    else:
        r, g, b = _turn_hue(r, g, b, factor)
    return _unit(r), _unit(g), _unit(b)


@triton.jit
def _load_pixels(images, image, row, column, inside, stride_b, stride_h, stride_w, stride_c):
    """Red, green and blue of some pixels, float32 in 0..1."""
    at = images + image * stride_b + row.to(tl.int64) * stride_h + column.to(tl.int64) * stride_w
    r = tl.load(at, mask=inside, other=0).to(tl.float32) / 255.0
    g = tl.load(at + stride_c, mask=inside, other=0).to(tl.float32) / 255.0
    b = tl.load(at + 2 * stride_c, mask=inside, other=0).to(tl.float32) / 255.0
    return r, g, b


@triton.jit
def _grey_sums(
    images, factors, order, sums, stride_b, stride_h, stride_w, stride_c, PIXELS, WIDTH, BLOCK: tl.constexpr
):
    """sums[b, block] = grey of the block's pixels, summed, as they are before contrast. Grid (blocks of pixels, B)."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < PIXELS
    r, g, b = _load_pixels(images, image, pixel // WIDTH, pixel % WIDTH, inside, stride_b, stride_h, stride_w, stride_c)
    before = tl.full((), 1, tl.int32)
    for k in range(4):
        operation = tl.load(order + image * 4 + k)
        if operation == 1:
            before = before * 0
        if before == 1:
            r, g, b = _apply(r, g, b, operation, tl.load(factors + image * 4 + operation), 0.0)
    total = tl.sum(tl.where(inside, _grey(r, g, b), 0.0))
    tl.store(sums + image * tl.num_programs(0) + tl.program_id(0), total)


@triton.jit
def _mean(sums, means, BLOCKS, PIXELS, BLOCK: tl.constexpr):
    """means[b] = sum over blocks / PIXELS. Grid (B,)."""
    image = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    tl.store(means + image, tl.sum(tl.load(sums + image * BLOCKS + i, mask=i < BLOCKS, other=0.0)) / PIXELS)


@triton.jit
def _write(
    images, flip, factors, order, means, out, stride_b, stride_h, stride_w, stride_c,
    out_b, out_c, out_h, out_w, PIXELS, WIDTH,
    mean_r, mean_g, mean_b, std_r, std_g, std_b,
    JITTER: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Mirror, jitter, normalise and write a block of one image's pixels. Grid (blocks of pixels, B)."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < PIXELS
    row, column = pixel // WIDTH, pixel % WIDTH
    source = column
    if JITTER:
        source = tl.where(tl.load(flip + image) != 0, WIDTH - 1 - column, column)
    r, g, b = _load_pixels(images, image, row, source, inside, stride_b, stride_h, stride_w, stride_c)
    if JITTER:
        mean = tl.load(means + image)
        for k in range(4):
            operation = tl.load(order + image * 4 + k)
            r, g, b = _apply(r, g, b, operation, tl.load(factors + image * 4 + operation), mean)
    at = out + image * out_b + row.to(tl.int64) * out_h + column.to(tl.int64) * out_w
    kind = out.dtype.element_ty
    tl.store(at, ((r - mean_r) / std_r).to(kind), mask=inside)
    tl.store(at + out_c, ((g - mean_g) / std_g).to(kind), mask=inside)
    tl.store(at + 2 * out_c, ((b - mean_b) / std_b).to(kind), mask=inside)
    if CHANNELS == 4:
        tl.store(at + 3 * out_c, tl.zeros((BLOCK,), tl.float32).to(kind), mask=inside)


def _contrast_means(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Mean grey (B,) float32 of each image as it is when contrast comes to it."""
    batch, height, width, _ = images.shape
    blocks = triton.cdiv(height * width, BLOCK)
    sums = factors.new_empty((batch, blocks))
    means = factors.new_empty(batch)
    launch(
        _grey_sums, (blocks, batch), images, factors, order, sums, *images.stride(), height * width, width,
        BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    launch(_mean, (batch,), sums, means, blocks, height * width, BLOCK=power_of_2(blocks), num_warps=1)
    return means


def augment(
    images: Tensor,
    draws: ColourDraws | None,
    *,
    dtype: torch.dtype = torch.float32,
    channels: int = 3,
    channels_last: bool = False,
) -> Tensor:
    """Network input (B, channels, H, W) `dtype`; contract in ssd.ops.augment. images may have any strides."""
    batch, height, width, _ = images.shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty((batch, channels, height, width), dtype=dtype, device=images.device, memory_format=layout)
    if draws is None:  # the kernel reads none of these then
        flip, factors, order, means = images, out, images, out
    else:
        flip = draws.flip.contiguous().view(torch.uint8)
        factors, order = draws.factors.contiguous(), draws.order.contiguous()
        means = _contrast_means(images, factors, order)
    launch(
        _write, (triton.cdiv(height * width, BLOCK), batch),
        images, flip, factors, order, means, out, *images.stride(), *out.stride(), height * width, width, *MEAN, *STD,
        JITTER=draws is not None, CHANNELS=channels, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return out
