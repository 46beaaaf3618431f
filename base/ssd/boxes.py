"""Pure geometry on tensors: default boxes, overlaps, offsets. Boxes are fractions of the image's width and height."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["DefaultBoxes"]


@dataclass(frozen=True)
class DefaultBoxes:
    """The default boxes of SSD300 in both forms. xywh (D, 4) float32, clamped to 0..1; ltrb (D, 4) float32, made from it."""

    xywh: Tensor
    ltrb: Tensor
