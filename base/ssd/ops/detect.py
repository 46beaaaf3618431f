"""Network output to detections: decode, threshold per class, keep 200 a class, NMS, keep 200 an image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ssd.boxes import DefaultBoxes

__all__ = ["Detections", "detect"]


@dataclass(frozen=True)
class Detections:
    """boxes (B, K, 4) float32 ltrb, not clipped; scores (B, K) float32 descending; labels (B, K) int64; count (B,) int64.

    Rows from count[b] on are padding: zeros.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    count: Tensor


def detect(
    locations: Tensor,
    logits: Tensor,
    defaults: DefaultBoxes,
    *,
    score_threshold: float = 0.05,
    nms_overlap: float = 0.5,
    max_candidates: int = 200,
    max_detections: int = 200,
) -> Detections:
    """Detections of locations (B, 4, D) and logits (B, C, D), any float dtype; computed in float32.

    Per class 1..C-1: scores > score_threshold, the best `max_candidates`, then a box goes if its IoU with a better kept one
    is >= nms_overlap. The best `max_detections` of all classes are returned. Equal scores: lowest default box first, then
    lowest class; the same on every device.
    """
