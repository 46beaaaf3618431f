"""Network output to detections: decode, threshold per class, keep 200 a class, NMS, keep 200 an image.

Contract of the op `detect`. See `ssd.ops` for the letters. Evaluation may wait for the device, and this reference does:
how many scores pass the threshold decides how much work there is, from a handful to every default of every class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.boxes import DefaultBoxes, decode_offsets, iou, xywh_to_ltrb

__all__ = ["Detections", "detect"]

OVERLAPS_AT_ONCE = 1 << 22
"""Box pairs of one round of NMS: 16 MiB a tensor, 104 classes of 200 candidates."""


@dataclass(frozen=True)
class Detections:
    """boxes (B, K, 4) float32 ltrb, not clipped; scores (B, K) float32, descending; labels (B, K), count (B,) int64.

    K is `max_detections`. Rows from count[b] on are padding: zeros.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    count: Tensor


@dataclass(frozen=True)
class _Candidates:
    """Scores over the threshold, one row each. A group is one class of one image; defaults of a group ascend.

    image, label, default (M,) int64; score (M,) float32; box (M, 4) float32 ltrb.
    """

    image: Tensor
    label: Tensor
    default: Tensor
    score: Tensor
    box: Tensor

    def __getitem__(self, rows: Tensor) -> _Candidates:
        return _Candidates(self.image[rows], self.label[rows], self.default[rows], self.score[rows], self.box[rows])


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

    Per class 1..C-1: scores > score_threshold, the best `max_candidates`, then a box goes if its IoU with a better kept
    one is >= nms_overlap. The best `max_detections` of all classes are returned. Equal scores: lowest default box
    first, then lowest class; the same on every device. A score or box that is not finite is never a detection.
    """
    num_classes = logits.shape[1]
    found = _over_threshold(locations, logits, defaults, score_threshold)

    # The best of every group, in the order in which NMS looks at them. All sorts here are stable: what is equal stays
    # in the order it had, so the last sort is the first criterion.
    group = found.image * num_classes + found.label
    order = found.score.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    rank = _rank_in_runs(group[order])
    best = rank < max_candidates
    found, group, rank = found[order[best]], group[order[best]], rank[best]
    found = found[_survives_nms(found.box, group, rank, nms_overlap)]

    # The best of every image: score, then default, then class.
    order = (found.default * num_classes + found.label).argsort(stable=True)
    order = order[found.score[order].argsort(descending=True, stable=True)]
    order = order[found.image[order].argsort(stable=True)]
    rank = _rank_in_runs(found.image[order])
    best = rank < max_detections
    return _padded(found[order[best]], rank[best], locations.shape[0], max_detections)


def _over_threshold(locations: Tensor, logits: Tensor, defaults: DefaultBoxes, threshold: float) -> _Candidates:
    """All candidates, ordered by image, class and default."""
    scores = logits.float().softmax(dim=1)
    boxes = xywh_to_ltrb(decode_offsets(locations.float().transpose(1, 2), defaults.xywh))
    # NaN compares false, and an infinite box is dropped with it.
    passed = (scores[:, 1:] > threshold) & boxes.isfinite().all(dim=2).unsqueeze(1)
    image, label, default = passed.nonzero().unbind(1)
    label = label + 1
    return _Candidates(image, label, default, scores[image, label, default], boxes[image, default])


def _rank_in_runs(values: Tensor) -> Tensor:
    """For sorted values (M,), the place of each within the run of its equals, from 0."""
    _, lengths = values.unique_consecutive(return_counts=True)
    starts = lengths.cumsum(0) - lengths
    return torch.arange(len(values), device=values.device) - starts.repeat_interleave(lengths)


def _survives_nms(boxes: Tensor, group: Tensor, rank: Tensor, threshold: float) -> Tensor:
    """Which boxes (M, 4) stay, (M,) bool, where rows of a group are neighbours and the better one stands first.

    Groups are worked on side by side, padded to the longest; those of like length together, so that padding costs
    little and one round takes bounded memory.
    """
    keep = torch.ones_like(rank, dtype=torch.bool)
    lengths = group.unique_consecutive(return_counts=True)[1]
    number = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    by_length = lengths.argsort(descending=True, stable=True)
    place = by_length.argsort()[number]
    sorted_lengths = lengths[by_length].tolist()
    first = 0
    while first < len(sorted_lengths) and (longest := sorted_lengths[first]) > 1:
        last = min(first + max(1, OVERLAPS_AT_ONCE // longest**2), len(sorted_lengths))
        rows = ((place >= first) & (place < last)).nonzero().squeeze(1)
        # Padding is a box without area: it overlaps nothing.
        padded = boxes.new_zeros(last - first, longest, 4)
        padded[place[rows] - first, rank[rows]] = boxes[rows]
        keep[rows] = _greedy(iou(padded, padded) >= threshold)[place[rows] - first, rank[rows]]
        first = last
    return keep


def _greedy(suppresses: Tensor) -> Tensor:
    """Greedy NMS of G groups side by side: suppresses (G, K, K) bool says that box i, if kept, removes box j > i.

    One step a rank: when box i's turn comes all better ones have had theirs, so its own fate is settled.
    """
    keep = torch.ones_like(suppresses[:, 0])
    for i in range(suppresses.shape[1] - 1):
        keep[:, i + 1 :] &= ~(suppresses[:, i, i + 1 :] & keep[:, i : i + 1])
    return keep


def _padded(found: _Candidates, rank: Tensor, batch: int, rows: int) -> Detections:
    """Detections of `batch` images, `rows` each; those without any are there, with count 0."""
    boxes = found.box.new_zeros(batch, rows, 4)
    scores = found.score.new_zeros(batch, rows)
    labels = found.label.new_zeros(batch, rows)
    boxes[found.image, rank], scores[found.image, rank], labels[found.image, rank] = found.box, found.score, found.label
    return Detections(boxes, scores, labels, torch.bincount(found.image, minlength=batch))
