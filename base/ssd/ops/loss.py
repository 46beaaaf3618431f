"""The SSD loss: smooth-L1 on positives, cross-entropy on positives and three times as many mined negatives."""

from __future__ import annotations

from torch import Tensor

__all__ = ["loss"]


def loss(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3) -> Tensor:
    """Per-image loss (B,) float32, differentiable in locations (B, 4, D) and logits (B, C, D) (fp32, bf16 or fp16).

    offsets (B, 4, D) float32 and labels (B, D) int64 come from `encode`. Computed in float32 whatever comes in.
    0 for an image without positives. Negatives are mined by cross-entropy, ties lowest default first, quota exact,
    positives never counted twice.
    """
