"""What an override is held to beside the reference: the loss and its gradients in double precision, unrounded crops.

Which negatives are mined is decided on float32 values, as the contract of `ssd.ops.loss` says; what is then summed is
computed in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssd.ops.crop import unrounded
from ssd.ops.loss import mine_negatives

__all__ = ["exact_crop", "exact_loss"]


def exact_crop(*inputs: Any, **options: Any) -> dict[str, Tensor]:
    """Images (B, size, size, 3) float32 that the reference has not rounded yet, and that they are contiguous.

    Which of two bytes a value between them becomes is decided by its last bits. So bytes are held to what was rounded.
    """
    return {"images": unrounded(*inputs, **options), "layout": torch.tensor([True])}


def exact_loss(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, **options: Any) -> dict[str, Tensor]:
    """Loss (B,) and gradients of locations and logits, all float32, rounded once from float64.

    The images' losses are weighted as `ssd.conformance.compare.outputs` weighs them. Shapes as in `ssd.ops.loss`.
    """
    positive = labels > 0
    scores = F.cross_entropy(logits.float(), labels, reduction="none")
    counts = positive | mine_negatives(scores, positive, options.get("negative_ratio", 3))

    wide = [x.detach().double().requires_grad_() for x in (locations, logits)]
    cross_entropy = F.cross_entropy(wide[1], labels, reduction="none")
    distance = F.smooth_l1_loss(wide[0], offsets.double(), reduction="none").sum(dim=1)
    loss = (distance * positive + cross_entropy * counts).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    weights = torch.arange(1, len(loss) + 1, dtype=torch.float64) / 2
    gradients = torch.autograd.grad(loss, wide, weights)
    return {
        "loss": loss.detach().float(),
        "grad_locations": gradients[0].float(),
        "grad_logits": gradients[1].float(),
    }
