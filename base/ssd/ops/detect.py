"""From network output to detections: decode, threshold, keep 200 a class, non-maximum suppression, keep 200 an image.

Contract of the op `detect`. See `ssd.ops` for the letters. Evaluation may synchronise with the device, and this
reference does. The number of scores that pass the threshold decides how much work there is, and it varies from a few to
every default box of every class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.boxes import DefaultBoxes, decode_offsets, iou, xywh_to_ltrb

__all__ = ["Detections", "detect"]

OVERLAPS_AT_ONCE = 1 << 22
"""Most pairs of boxes in one round of non-maximum suppression (NMS): 16 MiB a tensor, 104 groups of 200 candidates."""


@dataclass(frozen=True)
class Detections:
    """The detections of a batch, K = `max_detections` rows for each image.

    boxes: (B, K, 4) float32 ltrb, not clipped to the image. scores: (B, K) float32, descending. labels: (B, K) int64,
    from 1 on. count: (B,) int64, the number of detections of each image. Rows from count[b] on are zeros.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    count: Tensor


@dataclass(frozen=True)
class _Candidates:
    """The M pairs of default box and class whose score is above the threshold, one row for each pair.

    image, label, default: (M,) int64. score: (M,) float32. box: (M, 4) float32 ltrb. A group means all rows of one
    class of one image.
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
    """The detections in locations (B, 4, D) and logits (B, C, D), any float dtype. The arithmetic is float32.

    Each class from 1 to C - 1 is treated by itself. The scores above `score_threshold` are candidates, and the best
    `max_candidates` of them stay. NMS then removes a box whose IoU with a better box that stays is `nms_overlap` or
    more. Of all classes together the best `max_detections` are returned. Of equal scores, the lowest default box comes
    first, then the lowest class, on every device. A score or box that is not finite is never a detection.
    """
    num_classes = logits.shape[1]
    found = _over_threshold(locations, logits, defaults, score_threshold)

    # The best of every group, in the order in which NMS visits them. All sorts here are stable: equal values keep their
    # order. So of several sorts in a row, the last one is the main criterion.
    group = found.image * num_classes + found.label
    order = found.score.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    rank = _rank_in_runs(group[order])
    best = rank < max_candidates
    found, group, rank = found[order[best]], group[order[best]], rank[best]
    found = found[_survives_nms(found.box, group, rank, nms_overlap)]

    # The best of every image, by score, then default box, then class.
    order = (found.default * num_classes + found.label).argsort(stable=True)
    order = order[found.score[order].argsort(descending=True, stable=True)]
    order = order[found.image[order].argsort(stable=True)]
    rank = _rank_in_runs(found.image[order])
    best = rank < max_detections
    return _padded(found[order[best]], rank[best], locations.shape[0], max_detections)


def _over_threshold(locations: Tensor, logits: Tensor, defaults: DefaultBoxes, threshold: float) -> _Candidates:
    """All candidates of locations (B, 4, D) and logits (B, C, D), ordered by image, class and default box."""
    scores = logits.float().softmax(dim=1)
    boxes = xywh_to_ltrb(decode_offsets(locations.float().transpose(1, 2), defaults.xywh))
    # A NaN score fails the comparison. A box that is not finite is dropped as well.
    passed = (scores[:, 1:] > threshold) & boxes.isfinite().all(dim=2).unsqueeze(1)
    image, label, default = passed.nonzero().unbind(1)
    label = label + 1
    return _Candidates(image, label, default, scores[image, label, default], boxes[image, default])


def _rank_in_runs(values: Tensor) -> Tensor:
    """The position, from 0, of each element of values (M,) int64 among its equals, which are neighbours. (M,) int64."""
    _, lengths = values.unique_consecutive(return_counts=True)
    starts = lengths.cumsum(0) - lengths
    return torch.arange(len(values), device=values.device) - starts.repeat_interleave(lengths)


def _survives_nms(boxes: Tensor, group: Tensor, rank: Tensor, threshold: float) -> Tensor:
    """Which boxes (M, 4) float32 ltrb remain after NMS, (M,) bool.

    group: (M,) int64, rows of one group are neighbours. rank: (M,) int64, 0 for the best row of a group. Many groups
    are processed in one round, padded to the longest of them. Groups of similar length share a round, so that padding
    costs little. OVERLAPS_AT_ONCE bounds the memory of a round.
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
        # Padding is a box without area, which overlaps nothing.
        padded = boxes.new_zeros(last - first, longest, 4)
        padded[place[rows] - first, rank[rows]] = boxes[rows]
        keep[rows] = _greedy(iou(padded, padded) >= threshold)[place[rows] - first, rank[rows]]
        first = last
    return keep


def _greedy(suppresses: Tensor) -> Tensor:
    """Greedy NMS of G groups at once. Returns which boxes stay, (G, K) bool.

    suppresses: (G, K, K) bool. suppresses[g, i, j] says that box i, if it stays, removes box j > i. Step i handles the
    box of rank i of every group. All better boxes have been handled by then, so it is known whether box i stays.
    """
    keep = torch.ones_like(suppresses[:, 0])
    for i in range(suppresses.shape[1] - 1):
        keep[:, i + 1 :] &= ~(suppresses[:, i, i + 1 :] & keep[:, i : i + 1])
    return keep


def _padded(found: _Candidates, rank: Tensor, batch: int, rows: int) -> Detections:
    """Lay the candidates out as `batch` images of `rows` rows. An image without any candidate has count 0.

    rank: (M,) int64, the row of each candidate in its image.
    """
    boxes = found.box.new_zeros(batch, rows, 4)
    scores = found.score.new_zeros(batch, rows)
    labels = found.label.new_zeros(batch, rows)
    boxes[found.image, rank], scores[found.image, rank], labels[found.image, rank] = found.box, found.score, found.label
    return Detections(boxes, scores, labels, torch.bincount(found.image, minlength=batch))
