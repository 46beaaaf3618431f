"""From decoded pixels to the network's input: mirror, colour jitter, normalise, choose layout and precision.

Contract of the op `augment`. See `ssd.ops` for the letters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ColourDraws", "augment"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


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
    """Turn images (B, 300, 300, 3) uint8 into (B, channels, 300, 300) `dtype`; `draws=None` only normalises (evaluation).

    The jitter is torchvision's ColorJitter on values in 0..1, clamped after each operation. A fourth channel is zero.
    Memory format is channels_last where asked, else contiguous.
    """
