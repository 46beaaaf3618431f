"""Ground truth to targets: match each image's boxes with the default boxes and write the offsets the network regresses."""

from __future__ import annotations

from torch import Tensor

from ssd.boxes import DefaultBoxes

__all__ = ["encode"]


def encode(
    boxes: Tensor, labels: Tensor, defaults: DefaultBoxes, *, criteria: float = 0.5, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Match boxes (B, N, 4) float32 ltrb with labels (B, N) int64 (0 = padding, anywhere) to the defaults.

    Returns offsets (B, 4, D) float32, zero where the label is 0, and labels (B, D) int64.
    Matching rules: golden/README.md section 2 (ties: lowest ground truth for a default, lowest default for a ground truth;
    of several ground truths with one best default the last wins).
    """
