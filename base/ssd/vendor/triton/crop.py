"""Op `crop` in one Triton kernel: bytes of the stored images in, bytes of the batch out, with nothing written between.

A program computes a block of one image's output pixels. It adds up the cells under each pixel's triangle and no other:
for a crop of 640 pixels 5 by 5 of them, where the reference multiplies 640 by 640. Weights are computed in registers
from the rectangle, by the operations of the reference. The sums are in another order, so a value that lies on the edge
between two bytes may be rounded to the other one. Neighbours read the same cells: a crop comes from memory once, and
again from a cache. The mask keeps every load inside the rectangle.
"""
# Triton derives the types of a kernel's arguments from what it is started with; annotations would mean nothing.
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssd.counts import IMAGE_SIZE
from ssd.ops.crop import RGB_OF_YCBCR, Plane
from ssd.vendor.triton.launch import INTERPRETED, launch

__all__ = ["crop"]

BLOCK = 2**12 if INTERPRETED else 2**9
"""Output pixels of a program."""
NOT_SPECIALISED = ("size",)
"""It is a number of the program where it is 1, too."""
RED_OF_CR, GREEN_OF_CB, GREEN_OF_CR, BLUE_OF_CB = (
    tl.constexpr(float(RGB_OF_YCBCR[place])) for place in ((0, 2), (1, 1), (1, 2), (2, 1))
)
MIDDLE = tl.constexpr(1.5 * 2**23)
"""From 2**23 to 2**24 float32 holds whole numbers alone: what is added to it is rounded to one, of two to the even."""


@triton.jit
def _line(low, high, i, size, STEP: tl.constexpr):
    """One direction of a crop, pixels low..high, for output pixels i: the first cell of the crop and their number; how
    far a triangle reaches and how many cells that may be; where each triangle's top is and its first cell, counted in
    the crop, with 0 for the middle of a cell.
    """
    first = low // STEP
    count = ((high + STEP - 1) // STEP - first).to(tl.int32)
    begin = (low - first * STEP).to(tl.float32) / STEP
    scale = tl.div_rn((high - low).to(tl.float32) / STEP, size.to(tl.float32))
    reach = tl.maximum(scale, 1.0)
    taps = tl.minimum(tl.ceil(2.0 * reach + 0.5).to(tl.int32), count)
    centre = begin + scale * (i.to(tl.float32) + 0.5)
    return first, count, reach, taps, centre - 0.5, tl.maximum(tl.floor(centre - reach), 0.0).to(tl.int32)


@triton.jit
def _weight(cell, count, reach, top):
    """Height of the triangle over a cell, 0 beyond it and beyond the crop. The sum of the weights is divided by."""
    return tl.where(cell < count, tl.maximum(reach - tl.abs(cell.to(tl.float32) - top), 0.0), 0.0)


@triton.jit
def _resized(
    pixels, starts, widths, slot, left, top, right, bottom, row, column, size, stride_p, stride_c,
    STEP: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Up to three channels of one plane at some output pixels, float32; those beyond C are 0."""
    first_y, count_y, reach_y, taps_y, top_y, low_y = _line(top, bottom, row, size, STEP)
    first_x, count_x, reach_x, taps_x, top_x, low_x = _line(left, right, column, size, STEP)
    width = tl.load(widths + slot)
    corner = pixels + (tl.load(starts + slot) + first_y * width + first_x) * stride_p
    line = width.to(tl.int32) * stride_p
    a, b, c = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for tap_y in range(taps_y):
        y = low_y + tap_y
        down = _weight(y, count_y, reach_y, top_y)
        for tap_x in range(taps_x):
            x = low_x + tap_x
            weight = down * _weight(x, count_x, reach_x, top_x)
            at, some = corner + y * line + x * stride_p, weight > 0.0
            total += weight
            a = tl.fma(weight, tl.load(at, mask=some, other=0).to(tl.float32), a)
            if C > 1:
                b = tl.fma(weight, tl.load(at + stride_c, mask=some, other=0).to(tl.float32), b)
            if C > 2:
                c = tl.fma(weight, tl.load(at + 2 * stride_c, mask=some, other=0).to(tl.float32), c)
    return a / total, b / total, c / total


@triton.jit
def _byte(x):
    """Round to the nearest whole number, of two as near the even one, and cut to 0..255."""
    return (tl.minimum(tl.maximum(x, 0.0), 255.0) + MIDDLE - MIDDLE).to(tl.uint8)


@triton.jit(do_not_specialize=NOT_SPECIALISED)
def _crop(
    slots, rectangles, pixels, starts, widths, chroma, chroma_starts, chroma_widths, out, size,
    stride_p, stride_c, chroma_p, chroma_c, PLANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Resize a block of one image's output pixels and write them. Grid (blocks of pixels, B)."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < size * size
    real = tl.where(inside, pixel, 0)  # the weights of a pixel that is not there would add up to 0
    row, column = real // size, real % size
    slot = tl.load(slots + image)
    left, top = tl.load(rectangles + image * 4), tl.load(rectangles + image * 4 + 1)
    right, bottom = tl.load(rectangles + image * 4 + 2), tl.load(rectangles + image * 4 + 3)
    if PLANES == 1:
        r, g, b = _resized(
            pixels, starts, widths, slot, left, top, right, bottom, row, column, size, stride_p, stride_c, 1, 3, BLOCK
        )
    else:
        luma, _, _ = _resized(
            pixels, starts, widths, slot, left, top, right, bottom, row, column, size, stride_p, stride_c, 1, 1, BLOCK
        )
        cb, cr, _ = _resized(
            chroma, chroma_starts, chroma_widths, slot, left, top, right, bottom, row, column, size,
            chroma_p, chroma_c, 2, 2, BLOCK,
        )  # fmt: skip
        cb, cr = cb - 128.0, cr - 128.0
        r, g, b = luma + RED_OF_CR * cr, luma + GREEN_OF_CB * cb + GREEN_OF_CR * cr, luma + BLUE_OF_CB * cb
    at = out + (image * size * size + pixel) * 3
    tl.store(at, _byte(r), mask=inside)
    tl.store(at + 1, _byte(g), mask=inside)
    tl.store(at + 2, _byte(b), mask=inside)


def crop(
    slots: Tensor,
    rectangles: Tensor,
    planes: tuple[Plane, ...],
    *,
    height: int,
    width: int,
    size: int = IMAGE_SIZE,
) -> Tensor:
    """Images (B, size, size, 3) uint8; contract in ssd.ops.crop. Needs no bounds, so height and width are not read."""
    out = torch.empty((len(slots), size, size, 3), dtype=torch.uint8, device=slots.device)
    luma, chroma = planes[0], planes[-1]
    tables = [(one.pixels, one.starts.contiguous(), one.widths.contiguous()) for one in (luma, chroma)]
    launch(
        _crop, (triton.cdiv(size * size, BLOCK), len(slots)),
        slots.contiguous(), rectangles.contiguous(), *tables[0], *tables[1], out, size,
        *luma.pixels.stride(), *chroma.pixels.stride(),
        PLANES=len(planes), BLOCK=BLOCK, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out
