"""Ground truth to targets: match each image's boxes with the default boxes and write the offsets the network regresses.

Contract of the op `encode`. See `ssd.ops` for the letters. The largest tensors are (B, N, D) float32: 64 images with 60
boxes each take 134 MB apiece.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssd.boxes import DefaultBoxes, encode_offsets, iou, ltrb_to_xywh

__all__ = ["encode"]


def encode(
    boxes: Tensor, labels: Tensor, defaults: DefaultBoxes, *, criteria: float = 0.5, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Match boxes (B, N, 4) float32 ltrb with labels (B, N) int64 (0 = padding, anywhere) to the defaults.

    Returns offsets (B, 4, D) float32, contiguous, zero where the label is 0, and labels (B, D) int64.

    The rules, which tests/golden/encode.npz witnesses. Overlap is IoU with the defaults' `ltrb`, which is not clipped.
    1. A default takes the ground truth that it overlaps most, if by more than `criteria`. Of equal ones the first.
    2. Every ground truth takes the default that it overlaps most, however little. Of equal ones the first. This wins
       over rule 1. Of several ground truths that take the same default the last gets it, so the others may have none.
    3. A positive default gets its ground truth's label, and offsets that decode to its box. Others get label 0.
    A box without area, or not finite, counts as padding, for its offsets would not be finite either. N may be 0.
    Reads nothing back to the host.

    epsilon: see `ssd.boxes.encode_offsets`; 0 but for comparisons with the original.
    """
    batch, count = labels.shape
    if count == 0:
        shape = (batch, defaults.xywh.shape[0])
        return boxes.new_zeros(batch, 4, shape[1]), labels.new_zeros(shape)

    boxes = boxes.float()
    real = (labels > 0) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2) & boxes.isfinite().all(dim=2)
    overlap = iou(boxes, defaults.ltrb).masked_fill_(~real.unsqueeze(2), -1.0)
    # Both maxima give the first of equals, on every device: torch documents it.
    best_overlap, matched = overlap.max(dim=1)
    favourite = overlap.argmax(dim=2)

    # Several ground truths may name one favourite: a maximum over their indices has no order, unlike a write.
    index = torch.arange(count, device=labels.device).expand(batch, count).masked_fill(~real, -1)
    claimed_by = index.new_full(matched.shape, -1).scatter_reduce_(1, favourite, index, "amax")
    claimed = claimed_by >= 0
    matched = torch.where(claimed, claimed_by, matched)
    positive = claimed | (best_overlap > criteria)

    targets = ltrb_to_xywh(boxes).gather(1, matched.unsqueeze(2).expand(-1, -1, 4))
    offsets = encode_offsets(targets, defaults.xywh, epsilon)
    offsets = torch.where(positive.unsqueeze(2), offsets, 0.0).transpose(1, 2).contiguous()
    return offsets, torch.where(positive, labels.gather(1, matched), 0)
