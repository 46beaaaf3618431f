"""Geometry of boxes on tensors: default boxes, overlaps, offsets. Coordinates are fractions of the image's sides.

`ltrb` means left, top, right, bottom. `xywh` means x and y of the centre, width and height. The four numbers are always
the last axis. The default boxes (also called anchors or priors) are those of the SSD paper (Liu et al. 2016, section
2.2), with the sizes that the MLPerf benchmark fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ssd.counts import IMAGE_SIZE

__all__ = [
    "ASPECT_RATIOS",
    "BOXES_PER_CELL",
    "FEATURE_SIZES",
    "IMAGE_SIZE",
    "NUM_DEFAULTS",
    "SCALES",
    "STEPS",
    "DefaultBoxes",
    "decode_offsets",
    "default_boxes",
    "encode_offsets",
    "iou",
    "ltrb_to_xywh",
    "xywh_to_ltrb",
]

FEATURE_SIZES = (38, 19, 10, 5, 3, 1)
"""Cells a side of the six source maps."""
STEPS = (8, 16, 32, 64, 100, 300)
"""Pixels between the centres of neighbouring cells, per map."""
SCALES = (21, 45, 99, 153, 207, 261, 315)
"""Side of the small square box of each map, in pixels. The large square box of a map lies between its own scale and the
next one, so there is a seventh scale for the last map."""
ASPECT_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
"""Ratios of the longer to the shorter side of each map's elongated boxes. Each ratio gives a wide and a tall box."""
BOXES_PER_CELL = tuple(2 + 2 * len(ratios) for ratios in ASPECT_RATIOS)
"""Default boxes at each cell of a map: two squares, and two boxes for each ratio. That makes 4, 6, 6, 6, 4, 4."""
NUM_DEFAULTS = sum(count * size * size for count, size in zip(BOXES_PER_CELL, FEATURE_SIZES, strict=True))
"""The number of default boxes of an image: 8,732."""

XY_WEIGHT, WH_WEIGHT = 10.0, 5.0
"""Factors of the offsets of centres and of sizes. They bring the offsets' spread near 1. They are the inverses of the
SSD paper's variances 0.1 and 0.2."""


@dataclass(frozen=True)
class DefaultBoxes:
    """The default boxes of SSD300: xywh (D, 4) float32, clamped to 0..1; ltrb (D, 4) float32, made from it."""

    xywh: Tensor
    ltrb: Tensor

    def to(self, device: torch.device | str) -> DefaultBoxes:
        """The same boxes on another device."""
        return DefaultBoxes(self.xywh.to(device), self.ltrb.to(device))


@cache
def default_boxes() -> DefaultBoxes:
    """The 8,732 default boxes, on the CPU. All callers get the same tensors, so nobody may write to them.

    They are ordered by map, then shape, then row, then column. So a head's output (B, 4 * shapes, H, W) becomes
    (B, 4, D) by a reshape alone. Only `xywh` is clamped to 0..1. Boxes of `ltrb` may reach beyond the image, as in the
    benchmark's reference.
    """
    maps = [_boxes_of_map(level) for level in range(len(FEATURE_SIZES))]
    xywh = torch.cat(maps).clamp(0, 1).float()
    return DefaultBoxes(xywh, xywh_to_ltrb(xywh))


def _boxes_of_map(level: int) -> Tensor:
    """Default boxes of one source map, xywh (shapes * rows * columns, 4) float64, not clamped."""
    scale, next_scale = SCALES[level] / IMAGE_SIZE, SCALES[level + 1] / IMAGE_SIZE
    between = math.sqrt(scale * next_scale)
    shapes = [(scale, scale), (between, between)]
    for ratio in ASPECT_RATIOS[level]:
        long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        shapes += [(long, short), (short, long)]
    cells = FEATURE_SIZES[level]
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * STEPS[level] / IMAGE_SIZE
    sizes = torch.tensor(shapes, dtype=torch.float64).view(-1, 1, 1, 2).expand(-1, cells, cells, 2)
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    xy = torch.stack((x, y), dim=-1).expand(len(shapes), cells, cells, 2)
    return torch.cat((xy, sizes), dim=-1).reshape(-1, 4)


def ltrb_to_xywh(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) of any float dtype from ltrb to xywh. Shape and dtype stay."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) * 0.5, high - low), dim=-1)


def xywh_to_ltrb(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) of any float dtype from xywh to ltrb. Shape and dtype stay."""
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return torch.cat((centre - half, centre + half), dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each box of a (..., N, 4) with each box of b (..., M, 4), ltrb, any float dtype.

    Returns (..., N, M) of the same dtype, values in 0..1. No epsilon is added. The result is 0 for a pair whose union
    is empty and for a pair that contains a NaN, so the result never holds a NaN. A box with right < left or bottom <
    top overlaps nothing.
    """
    # The sides are made contiguous, and tensors that only this function holds are changed in place. That takes 2.0 ms
    # instead of 2.7 ms on a CPU to match 20 boxes.
    a_left, a_top, a_right, a_bottom = a.movedim(-1, 0).contiguous().unsqueeze(-1)
    b_left, b_top, b_right, b_bottom = b.movedim(-1, 0).contiguous().unsqueeze(-2)
    width = torch.minimum(a_right, b_right).sub_(torch.maximum(a_left, b_left)).clamp_(min=0)
    height = torch.minimum(a_bottom, b_bottom).sub_(torch.maximum(a_top, b_top)).clamp_(min=0)
    intersection = width.mul_(height)
    area_a, area_b = (a_right - a_left) * (a_bottom - a_top), (b_right - b_left) * (b_bottom - b_top)
    union = (area_a + area_b).sub_(intersection)
    # A fill, not a product: 0 / 0 must become 0 and not stay NaN.
    return intersection.div_(union).masked_fill_(~(union > 0), 0.0)


def encode_offsets(xywh: Tensor, defaults_xywh: Tensor, epsilon: float = 0.0) -> Tensor:
    """The regression targets that turn default boxes (..., 4) xywh into boxes (..., 4) xywh, any float dtype.

    Returns (..., 4): dx, dy, dw, dh. With box g, default d and epsilon e, (dx, dy) = 10 * (g_xy - d_xy) / (d_wh + e)
    and (dw, dh) = 5 * ln(g_wh / (d_wh + e) + e). Training uses epsilon 0, and `decode_offsets` is the inverse of that.
    The original's native loss used 1e-5.
    """
    size = defaults_xywh[..., 2:] + epsilon
    shift = XY_WEIGHT * (xywh[..., :2] - defaults_xywh[..., :2]) / size
    stretch = WH_WEIGHT * torch.log(xywh[..., 2:] / size + epsilon)
    return torch.cat((shift, stretch), dim=-1)


def decode_offsets(offsets: Tensor, defaults_xywh: Tensor) -> Tensor:
    """The boxes (..., 4) xywh that offsets (..., 4) describe relative to default boxes (..., 4) xywh, any float dtype.

    The inverse of `encode_offsets` with epsilon 0. The inputs are not changed.
    """
    size = defaults_xywh[..., 2:]
    centre = offsets[..., :2] / XY_WEIGHT * size + defaults_xywh[..., :2]
    return torch.cat((centre, torch.exp(offsets[..., 2:] / WH_WEIGHT) * size), dim=-1)
