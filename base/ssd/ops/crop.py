"""From decoded images in the device's memory to a batch of equal size: cut rectangles out and resize them.

Contract of the op `crop`, which only the loader `resident` calls. See `ssd.ops` for the letters.

The antialiased bilinear resize of torch and PIL is linear in each direction. So it is a product with one matrix of
weights for each direction. Most of these weights are 0: an output pixel has a weight in about 2 cells of a line, or in
2 cells for each cell that it stands for. This reference multiplies by all of them, in float32.

H and W are the height and width of the largest rectangle of a chunk, P the pixels of all images, n their number.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssd.counts import IMAGE_SIZE

__all__ = ["CHUNK_PIXELS", "RGB_OF_YCBCR", "Plane", "crop", "unrounded"]

CHUNK_PIXELS = 2**22
"""Pixels, padding included, that are resized at once. That is 10 whole images of COCO's largest size."""

# The rows give R, G and B from (Y, Cb - 128, Cr - 128), as JFIF defines them (ITU-R BT.601, full range).
RGB_OF_YCBCR = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
_MATRIX = torch.from_numpy(RGB_OF_YCBCR.T.copy())


@dataclass(frozen=True)
class Plane:
    """One plane of many images, one image after the other in a flat buffer, each line after line.

    pixels: (P, C) uint8. starts: (n,) int64, the first pixel of each image in the buffer. widths: (n,) int64, each
    image's width in this plane. step: 1 for a plane of full size, 2 for a plane of half the width and height, rounded
    up.
    """

    pixels: Tensor
    starts: Tensor
    widths: Tensor
    step: int = 1


def crop(
    slots: Tensor,
    rectangles: Tensor,
    planes: tuple[Plane, ...],
    *,
    height: int,
    width: int,
    size: int = IMAGE_SIZE,
) -> Tensor:
    """Cut rectangles out of stored images and resize them: (B, size, size, 3) uint8 RGB, contiguous.

    slots: (B,) int64, the number of each image in the planes. rectangles: (B, 4) int64, left, top, right and bottom in
    pixels, each within its image and with a pixel at least. planes: one of C = 3, which is RGB; or two, luma (C = 1,
    step 1) and chroma (C = 2, step 2: Cb and Cr, 128 is none). height, width: numbers of the host that no rectangle
    exceeds, so that nothing here waits for the device. size: side of the result in pixels.

    The weights of an output pixel form a triangle around its centre. Its half width is an output pixel, or a cell of
    the plane where cells are wider. It is cut off at the ends of the rectangle, and the weights add up to 1. A chroma
    cell that the rectangle cuts counts as whole. The result is rounded once, to the nearest whole number, of two as
    near the even one. Arithmetic is float32, so a value that lies within 0.02 of half a step may be rounded either way.
    Nothing is mirrored: the op `augment` does that. Nothing is copied between host and device after the first call.
    """
    chunk = max(1, CHUNK_PIXELS // (width * height))
    parts = zip(slots.split(chunk), rectangles.split(chunk), strict=True)
    resized = (unrounded(some, cuts, planes, height=height, width=width, size=size) for some, cuts in parts)
    return torch.cat([part.round().to(torch.uint8) for part in resized])


def unrounded(
    slots: Tensor, rectangles: Tensor, planes: tuple[Plane, ...], *, height: int, width: int, size: int = IMAGE_SIZE
) -> Tensor:
    """What `crop` rounds: (B, size, size, 3) float32 in 0..255. The arguments are those of `crop`."""
    resized = torch.cat([_resized(plane, slots, rectangles, height, width, size) for plane in planes], dim=3)
    if len(planes) == 2:
        resized[..., 1:] -= 128
        resized = resized @ _rgb_of_ycbcr(resized.device)
    return resized.clamp(0, 255)


@functools.cache
def _rgb_of_ycbcr(device: torch.device) -> Tensor:
    """The matrix (3, 3) float32 on a device. It is copied there at the first call."""
    return _MATRIX.to(device)


def _resized(plane: Plane, slots: Tensor, rectangles: Tensor, height: int, width: int, size: int) -> Tensor:
    """Rectangles of one plane, resized: (B, size, size, C) float32."""
    left, top, right, bottom = (rectangles.T / plane.step).unbind()
    rows, down = _taps(top, bottom - top, -(-height // plane.step) + plane.step - 1, size)
    columns, across = _taps(left, right - left, -(-width // plane.step) + plane.step - 1, size)
    line = plane.starts[slots, None] + rows * plane.widths[slots, None]
    window = plane.pixels[line[:, :, None] + columns[:, None, :]].float()  # (B, H, W, C)
    count, _, most, channels = window.shape
    half = torch.bmm(down, window.flatten(2)).view(count, size, most, channels)
    turned = half.transpose(1, 2).reshape(count, most, size * channels)
    return torch.bmm(across, turned).view(count, size, size, channels).transpose(1, 2)


def _taps(start: Tensor, length: Tensor, most: int, size: int) -> tuple[Tensor, Tensor]:
    """The cells of a line that an antialiased bilinear resize to `size` pixels reads, and the weight of each cell.

    start, length: (B,) float32, the section of the line that is resized, in cells. most: a number of cells that no
    section exceeds. Returns cells (B, most) int64 and weights (B, size, most) float32. Beyond the end of a section its
    last cell is repeated with weight 0. The weights form a triangle around each output pixel. Its half width is an
    output pixel, or a cell where cells are wider. It is cut off at the ends of the section.
    """
    first = start.floor()
    count = (start + length).ceil() - first
    steps = torch.arange(most, device=start.device)
    cells = (first[:, None] + torch.minimum(steps, count[:, None] - 1)).long()
    scale = (length / size)[:, None]
    centres = (start - first)[:, None] + scale * (torch.arange(size, device=start.device) + 0.5)
    reach = scale.clamp(min=1)[:, :, None]
    weights = (1 - (steps + 0.5 - centres[:, :, None]).abs() / reach).clamp(min=0)
    weights = weights * (steps < count[:, None])[:, None]
    return cells, weights / weights.sum(2, keepdim=True)
