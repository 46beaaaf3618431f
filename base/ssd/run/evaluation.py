"""Evaluation: runs the model on every validation image once, gathers the detections of all ranks, and scores them.

The score is COCO's twelve statistics. A library computes them, which the key `coco_metric` chooses: hotcoco, or
pycocotools, which defines COCO's metric. Both get the boxes, areas and crowd flags of the annotation file unchanged, as
COCO's metric needs them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssd.account.timeline import Timeline
from ssd.boxes import DefaultBoxes
from ssd.compute.device import Abilities
from ssd.compute.laps import Laps
from ssd.compute.precision import DTYPES, autocast
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.counts import IMAGE_SIZE
from ssd.data import EvalBatch
from ssd.ops import Detections, Ops
from ssd.run.sources import EvalSource

__all__ = [
    "STATISTICS",
    "as_record",
    "bbox_statistics",
    "blank_batches",
    "detect_all",
    "detection_rows",
    "detections",
    "evaluate",
    "input_channels",
    "numbered",
    "score",
]

STATISTICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def bbox_statistics(
    ground_truth: Path | dict[str, Any], rows: np.ndarray, image_ids: Sequence[int], library: str = "hotcoco"
) -> np.ndarray:
    """COCO's 12 bounding-box statistics, float64 (12,), in the order of STATISTICS.

    ground_truth: an instances_*.json file, or its content. rows (n, 7) float64: image id, x, y, width, height in
    pixels, score, category id; n may be 0. image_ids: the images that count. Ids are integers below 2^53, which a
    float64 holds exactly, and an annotation's id is not 0. A statistic of which the ground truth has no box is -1.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # both libraries print their tables
        if library == "pycocotools":
            return _pycocotools(ground_truth, rows, image_ids)
        from hotcoco import COCO, COCOeval

        truth = COCO(str(ground_truth) if isinstance(ground_truth, Path) else ground_truth)
        metric = COCOeval(truth, truth.loadRes(rows), "bbox")
        metric.params.imgIds = [int(i) for i in image_ids]
        metric.evaluate()
        metric.accumulate()
        metric.summarize()
    return np.asarray(metric.stats, dtype=np.float64)


def _pycocotools(ground_truth: Path | dict[str, Any], rows: np.ndarray, image_ids: Sequence[int]) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(ground_truth) if isinstance(ground_truth, Path) else None)
    if isinstance(ground_truth, dict):
        truth.dataset = ground_truth
        truth.createIndex()
    if len(rows):
        found = truth.loadRes(rows)
    else:  # loadRes looks at the first result
        found = COCO()
        found.dataset = {**{k: truth.dataset[k] for k in ("images", "categories")}, "annotations": []}
        found.createIndex()
    metric = COCOeval(truth, found, "bbox")
    metric.params.imgIds = list(image_ids)
    metric.evaluate()
    metric.accumulate()
    metric.summarize()
    return np.asarray(metric.stats, dtype=np.float64)


def detection_rows(found: Detections, batch: EvalBatch) -> np.ndarray:
    """Detections of a batch as rows (n, 7) float64: the image's row in the index, x, y, width, height, score, label.

    The box is in pixels. Rows and labels are small integers, which a float64 holds exactly whatever the ids are.
    """
    boxes, scores = found.boxes.cpu().numpy().astype(np.float64), found.scores.cpu().numpy().astype(np.float64)
    labels, count = found.labels.cpu().numpy(), found.count.cpu().numpy()
    real = np.arange(scores.shape[1])[None, :] < count[:, None]
    image, place = np.nonzero(real)
    sizes = batch.sizes.cpu().numpy().astype(np.float64)[image]
    left_top = boxes[image, place, :2] * sizes
    size = boxes[image, place, 2:] * sizes - left_top
    rows = np.asarray(batch.rows, dtype=np.float64)[image]
    return np.column_stack([rows, left_top, size, scores[image, place], labels[image, place]]).astype(np.float64)


def input_channels(config: Config) -> int:
    """Channels of the network's input; the fourth of a padded one holds zeros."""
    return 4 if config.pad_input else 3


@torch.inference_mode()
def detect_all(
    model: nn.Module,
    batches: Iterable[EvalBatch],
    ops: Ops,
    defaults: DefaultBoxes,
    abilities: Abilities,
    config: Config,
    timeline: Timeline | None = None,
    captured: Callable[[Tensor], Detections] | None = None,
) -> np.ndarray:
    """The detections of every image of `batches`: rows (n, 7) float64 of `detection_rows`.

    The model is evaluated in evaluation mode and keeps its own mode afterwards. timeline: the time of waiting for
    images, of the forward pass and of detecting is added to it. captured: what gives the detections of images instead,
    a replay of `detections`; its time is one piece, and counts as that of the forward pass.
    """
    timeline = timeline or Timeline()
    was_training = model.training
    model.eval()
    rows, laps, before = [np.zeros((0, 7))], Laps(abilities), timeline.totals()
    with timeline.part("eval_detect"):
        for batch in timeline.each("eval_images", batches):
            laps.mark("")
            if captured is not None:
                found = captured(batch.images)
                laps.mark("eval_forward")
            else:
                images = batch.images.to(abilities.device)
                found = detections(images, model, ops, defaults, config, lambda: laps.mark("eval_forward"))
                laps.mark("eval_detect")
            rows.append(detection_rows(found, batch))
    # The device has passed all marks, since its detections are read.
    timeline.divide("eval_detect", timeline.since(before).get("eval_detect", 0.0), laps.seconds())
    model.train(was_training)
    return np.concatenate(rows)


def detections(
    images: Tensor,
    model: nn.Module,
    ops: Ops,
    defaults: DefaultBoxes,
    config: Config,
    forward_done: Callable[[], None] = lambda: None,
) -> Detections:
    """The detections in images (B, 300, 300, 3) uint8 on the device, by a model in evaluation mode.

    forward_done: called when the forward pass has been put to work.
    """
    network_input = ops.augment(
        images,
        None,
        dtype=DTYPES[config.precision],
        channels=input_channels(config),
        channels_last=config.nhwc,
    )
    with autocast(images.device, config.precision):
        locations, logits = model(network_input)
    forward_done()
    return ops.detect(locations, logits, defaults, score_threshold=config.nms_valid_thresh)


def blank_batches(images: int, batch_size: int) -> list[EvalBatch]:
    """Blank batches for a warm-up, one of each size that an evaluation of `images` images has, the largest first.

    Without them a shape would be compiled, and its kernels chosen, at the first evaluation, which is in the timed part.
    """
    sizes = sorted({min(images, batch_size), images % batch_size} - {0}, reverse=True)
    blank = torch.zeros(max(sizes, default=0), IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    return [EvalBatch(blank[:size], (0,) * size, torch.ones(size, 2, dtype=torch.int64)) for size in sizes]


def score(source: EvalSource, rows: np.ndarray, library: str) -> np.ndarray:
    """The statistics (12,) float64 of detections, rows (n, 7) of `detection_rows`, on the images of `source`."""
    found, images = numbered(source, rows)
    return bbox_statistics(source.ground_truth, found, images, library)


def numbered(source: EvalSource, rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Rows (n, 7) float64 of `detection_rows` with the metric's numbers for images, and the numbers of all images.

    The metric's number of an image is its id in the ground truth.
    """
    order = source.index.id_order  # the metric breaks ties by this number
    return np.column_stack([order[rows[:, 0].astype(np.int64)], rows[:, 1:]]), order[source.rows].tolist()


def evaluate(
    source: EvalSource, rows: np.ndarray, ranks: Ranks, library: str, timeline: Timeline | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Score the detections of all ranks. Every rank must call it with its own rows (n, 7) float64.

    Returns the statistics (12,) float64, which rank 0 computes, on every rank; and the rows of all ranks, on rank 0
    only.
    """
    everything = ranks.gather_rows(rows)
    with (timeline or Timeline()).part("eval_metric"):
        statistics = score(source, everything, library) if ranks.is_rank_0 else None
    return ranks.broadcast(statistics), everything


def as_record(statistics: np.ndarray) -> dict[str, float | None]:
    """The statistics (12,) float64 by name. None for one with nothing to score, for which COCO's libraries give -1."""
    return {name: None if value < 0 else value for name, value in zip(STATISTICS, statistics.tolist(), strict=True)}
