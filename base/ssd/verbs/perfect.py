"""The metric of `check`, held to a perfect detector: the ground truth fed back as detections scores AP 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ssd.config import Config
from ssd.data import EvalBatch
from ssd.data.index import Index, clipped_words, ground_truth, require_scorable
from ssd.data.loader import eval_rows
from ssd.ops import Detections
from ssd.run.evaluation import detection_rows, score
from ssd.run.sources import EvalSource
from ssd.text import counted
from ssd.vendor import Check

__all__ = ["perfect_detector"]

PERFECT = 0.999
"""Least AP of the ground truth fed back: boxes are kept in float32, and lose part of a pixel."""
MOST_DETECTIONS = 100
"""Detections of a class that COCO's metric looks at in an image, the best first."""


def perfect_detector(config: Config, index: Index) -> Check:
    """The ground truth as detections, by the path of real ones, scores AP 1: numbers, scales and metric are right.

    A detection never reaches out of its image, so it is compared with the ground truth clipped to the images. Where
    that differs from the file's own boxes, which a run is scored by, the best score of a run is said, too.
    """
    chosen = eval_rows(index, config.eval_images)
    require_scorable(index, chosen)
    found = np.concatenate([_truth_as_rows(index, part) for part in np.array_split(chosen, max(1, len(chosen) // 64))])
    sizes = np.repeat(index.sizes, np.diff(index.offsets), axis=0)
    inside = index.boxes.astype(np.float64) * np.tile(sizes, 2)
    clipped = replace(index, bboxes=np.column_stack([inside[:, :2], inside[:, 2:] - inside[:, :2]]))
    perfect, best = (_score(config, one, chosen, found) for one in (clipped, index))
    text = f"ground truth fed back as predictions scores AP {perfect:.4f}"
    if best < PERFECT <= perfect:
        reason = clipped_words(int(index.clipped().sum()), len(index.labels))
        text += f", where it is clipped to the images; {reason}, so that no run can score more than AP {best:.4f}"
    beyond = _beyond_metric(index, chosen)
    remedy = beyond or "the library that coco_metric names is broken: try the other one"
    return Check("metric", perfect >= PERFECT or bool(beyond), f"{text}{beyond and '; '}{beyond}", remedy)


def _score(config: Config, index: Index, chosen: np.ndarray, found: np.ndarray) -> float:
    return float(score(EvalSource((), index, chosen, ground_truth(index, chosen)), found, config.coco_metric)[0])


def _beyond_metric(index: Index, chosen: np.ndarray) -> str:
    """Which boxes of the ground truth no detection can match, in words; "" where there is none."""
    places = index.annotations_of(chosen)
    places = places[~index.iscrowd[places]]
    flat = int((~index.usable[places]).sum())
    owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))[places]
    counts = np.unique(np.column_stack([owner, index.labels[places]]), axis=0, return_counts=True)[1]
    crowded = int((counts > MOST_DETECTIONS).sum())
    said = []
    if flat:
        said.append(f"{counted(flat, 'box has', 'boxes have')} no size within their image, never to be found")
    if crowded:
        said.append(
            f"{counted(crowded, 'time')} an image has over {MOST_DETECTIONS} boxes of a class, and COCO counts no more"
        )
    return "; ".join(said)


def _truth_as_rows(index: Index, part: np.ndarray) -> np.ndarray:
    """Detections of score 1 for every usable box that is not a crowd, as rows (n, 7) of COCO results."""
    spans = [np.arange(index.offsets[row], index.offsets[row + 1]) for row in part]
    spans = [span[index.usable[span] & ~index.iscrowd[span]] for span in spans]
    widest = max((len(span) for span in spans), default=0)
    boxes, labels = np.zeros((len(part), widest, 4), np.float32), np.zeros((len(part), widest), np.int64)
    for place, span in enumerate(spans):
        boxes[place, : len(span)], labels[place, : len(span)] = index.boxes[span], index.labels[span]
    count = torch.tensor([len(span) for span in spans])
    found = Detections(torch.from_numpy(boxes), torch.ones(labels.shape), torch.from_numpy(labels), count)
    batch = EvalBatch(torch.empty(0), tuple(part.tolist()), torch.from_numpy(index.sizes[part]))
    return detection_rows(found, batch)
