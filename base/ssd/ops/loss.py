"""The SSD loss: smooth-L1 on positives, cross-entropy on positives and three times as many mined negatives.

Contract of the op `loss`. See `ssd.ops` for the letters; Liu et al. 2016, section 2.2, for the idea.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["loss", "mine_negatives"]


def loss(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3) -> Tensor:
    """Per-image loss (B,) float32, differentiable in locations (B, 4, D) and logits (B, C, D) (fp32, bf16 or fp16).

    offsets (B, 4, D) float32 and labels (B, D) int64 come from `encode`. Computed in float32 whatever comes in. Both
    sums are divided by the image's positives; 0 for an image without any. Negatives are mined by cross-entropy, ties
    lowest default first, quota exact, positives never counted twice. A NaN in the network's output makes the image's
    loss NaN, also where no target looks at it. Reads nothing back to the host; shapes do not depend on values.
    """
    positive = labels > 0
    count = positive.sum(dim=1)
    cross_entropy = F.cross_entropy(logits.float(), labels, reduction="none")
    distance = F.smooth_l1_loss(locations.float(), offsets, reduction="none").sum(dim=1)
    mined = mine_negatives(cross_entropy.detach(), positive, negative_ratio)

    # Products instead of selections: 0 * NaN is NaN, so a broken output is never masked.
    total = (distance * positive + cross_entropy * (positive | mined)).sum(dim=1)
    return total / count.clamp(min=1)


def mine_negatives(cross_entropy: Tensor, positive: Tensor, ratio: int) -> Tensor:
    """Which negatives count, (B, D) bool: in each image the ratio * positives of largest cross_entropy (B, D) float32.

    All of them where there are fewer. Equal ones: lowest default first, as the sort is stable. NaN counts as largest.
    """
    count = positive.sum(dim=1, keepdim=True)
    quota = torch.minimum(ratio * count, positive.shape[1] - count)
    # Positives rank behind every negative, whose cross-entropy is at least 0.
    order = cross_entropy.masked_fill(positive, -1.0).sort(dim=1, descending=True, stable=True).indices
    rank = torch.arange(positive.shape[1], device=positive.device)
    # A permutation has no duplicates, so the order of these writes does not matter.
    return torch.zeros_like(positive).scatter_(1, order, rank < quota)
