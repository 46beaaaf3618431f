"""From ground truth to training targets: match each image's boxes with the default boxes and compute the offsets.

Contract of the op `encode`. See `ssd.ops` for the letters. The largest tensors are (B, N, D) float32. One of them takes
134 MB for 64 images with 60 boxes each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssd.boxes import DefaultBoxes, encode_offsets, iou, ltrb_to_xywh

__all__ = ["encode"]


def encode(
    boxes: Tensor, labels: Tensor, defaults: DefaultBoxes, *, criteria: float = 0.5, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Match ground-truth boxes (B, N, 4) float32 ltrb, with labels (B, N) int64, to the default boxes.

    A label of 0 marks padding, which may stand anywhere. N may be 0. Returns offsets (B, 4, D) float32, contiguous, and
    labels (B, D) int64. Offsets are 0 where the label is 0.

    The rules are those of the original; tests/golden/encode.npz holds its results. "Overlap" is the IoU with the
    default boxes' `ltrb`, which is not clipped to the image.
    1. A default box is matched to the ground truth that it overlaps most, if that overlap is more than `criteria`. Of
       several equal overlaps the ground truth with the lowest index counts.
    2. Every ground truth is matched to the default box that it overlaps most, however little that is. Of several equal
       overlaps the default box with the lowest index counts. Rule 2 wins over rule 1. Where several ground truths
       choose the same default box, the one with the highest index gets it. The others may then have no default box.
    3. A matched default box gets its ground truth's label, and the offsets that decode to the ground truth's box. All
       other default boxes get label 0.
    A box without area or with a coordinate that is not finite counts as padding, since its offsets would not be finite.
    Nothing is read back to the host.

    epsilon: see `ssd.boxes.encode_offsets`. It is 0 except in comparisons with the original.
    """
    batch, count = labels.shape
    if count == 0:
        shape = (batch, defaults.xywh.shape[0])
        return boxes.new_zeros(batch, 4, shape[1]), labels.new_zeros(shape)

    boxes = boxes.float()
    real = (labels > 0) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2) & boxes.isfinite().all(dim=2)
    overlap = iou(boxes, defaults.ltrb).masked_fill_(~real.unsqueeze(2), -1.0)
    # Of equal values, both maxima give the one with the lowest index. torch documents that for every device.
    best_overlap, matched = overlap.max(dim=1)
    favourite = overlap.argmax(dim=2)

    # Several ground truths may choose the same default box. A maximum over their indices does not depend on the order
    # in which threads write, so the highest index wins on every device.
    index = torch.arange(count, device=labels.device).expand(batch, count).masked_fill(~real, -1)
    claimed_by = index.new_full(matched.shape, -1).scatter_reduce_(1, favourite, index, "amax")
    claimed = claimed_by >= 0
    matched = torch.where(claimed, claimed_by, matched)
    positive = claimed | (best_overlap > criteria)

    targets = ltrb_to_xywh(boxes).gather(1, matched.unsqueeze(2).expand(-1, -1, 4))
    offsets = encode_offsets(targets, defaults.xywh, epsilon)
    offsets = torch.where(positive.unsqueeze(2), offsets, 0.0).transpose(1, 2).contiguous()
    return offsets, torch.where(positive, labels.gather(1, matched), 0)
