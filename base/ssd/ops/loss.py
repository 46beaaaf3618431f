"""The SSD loss: smooth-L1 on positives, and cross-entropy on positives and on three times as many mined negatives.

A positive is a default box that is matched to a ground truth. Contract of the op `loss`. See `ssd.ops` for the letters,
and Liu et al. 2016, section 2.2, for the idea.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["loss", "mine_negatives"]


def loss(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3) -> Tensor:
    """The loss (B,) float32 of each image. It is differentiable with respect to locations and logits.

    locations (B, 4, D) and logits (B, C, D), both float32, bfloat16 or float16, are the network's output. offsets
    (B, 4, D) float32 and labels (B, D) int64 come from `encode`. The arithmetic is float32 in every case. Both sums are
    divided by the image's number of positives. An image without positives has loss 0. `mine_negatives` chooses exactly
    negative_ratio negatives for each positive, and never a positive. A NaN in the network's output makes the image's
    loss NaN, even where that output has no target. Nothing is read back to the host. Shapes do not depend on values.
    """
    positive = labels > 0
    count = positive.sum(dim=1)
    cross_entropy = F.cross_entropy(logits.float(), labels, reduction="none")
    distance = F.smooth_l1_loss(locations.float(), offsets, reduction="none").sum(dim=1)
    mined = mine_negatives(cross_entropy.detach(), positive, negative_ratio)

    # These are products and not selections because 0 * NaN is NaN: a NaN of the network is never hidden by a mask.
    total = (distance * positive + cross_entropy * (positive | mined)).sum(dim=1)
    return total / count.clamp(min=1)


def mine_negatives(cross_entropy: Tensor, positive: Tensor, ratio: int) -> Tensor:
    """Hard-negative mining: which negatives count in the loss, (B, D) bool.

    cross_entropy: (B, D) float32. positive: (B, D) bool. In each image, the ratio * (number of positives) negatives
    with the largest cross-entropy count, or all negatives where there are fewer. Of equal values, the default box with
    the lowest index comes first, because the sort is stable. NaN counts as the largest value.
    """
    count = positive.sum(dim=1, keepdim=True)
    quota = torch.minimum(ratio * count, positive.shape[1] - count)
    # -1 sorts every positive behind all negatives, whose cross-entropy is at least 0.
    order = cross_entropy.masked_fill(positive, -1.0).sort(dim=1, descending=True, stable=True).indices
    rank = torch.arange(positive.shape[1], device=positive.device)
    # A permutation has no duplicates, so the order of these writes does not matter.
    return torch.zeros_like(positive).scatter_(1, order, rank < quota)
