"""The last evaluation of a run looked into: AP of each category, kinds of error, and how sure the mAP is.

Made once, after run_stop, by hotcoco's TIDE-like analysis and its bootstrap over images; it never touches the score.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval, compare

from ssd.files import write_whole
from ssd.run.evaluation import numbered
from ssd.run.sources import EvalSource

__all__ = ["analyse", "write_analysis"]

BOOTSTRAP_S = 10.0
"""Seconds that the bootstrap may take. It re-accumulates the metric twice a sample: at COCO's size, too long for it."""
FEWEST_SAMPLES, MOST_SAMPLES = 50, 500
CONFIDENCE = 0.95


def write_analysis(path: Path, source: EvalSource, rows: np.ndarray) -> None:
    """Write `analyse` of detections, rows (n, 7) float64 of `ssd.run.evaluation.detection_rows`, to a JSON file."""
    write_whole(path, json.dumps(analyse(source, rows), indent=1) + "\n")


def analyse(source: EvalSource, rows: np.ndarray) -> dict[str, Any]:
    """What the metric says beyond its twelve numbers, as plain values. rows: (n, 7) float64, the detections.

    categories: name, id, AP, AP50 (None without an annotated box), annotated boxes and detections of each.
    errors: TIDE's counts and the AP50 that mending each kind would add. interval: of mAP, None where it takes too long.
    """
    found, images = numbered(source, rows)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its tables
        truth = COCO(source.ground_truth)
        metric, took = _metric(truth, found, images)
        errors = metric.tide_errors()
        interval = _interval(truth, metric, images, took)
    # By IoU, recall and category; of boxes of all areas, with the most detections an image.
    precision = np.asarray((metric.eval or {})["precision"])[:, :, :, 0, -1]
    annotated = np.bincount(source.index.labels[_of_rows(source)], minlength=len(source.categories) + 1)
    detected = np.bincount(rows[:, 6].astype(np.int64), minlength=len(source.categories) + 1)
    categories = [
        {
            "name": name,
            "id": number,
            "AP": _mean(precision[:, :, label - 1]),
            "AP50": _mean(precision[0, :, label - 1]),
            "boxes": int(annotated[label]),
            "detections": int(detected[label]),
        }
        for label, (number, name) in enumerate(source.categories, 1)
    ]
    return {"categories": categories, "errors": errors, "interval": interval}


def _of_rows(source: EvalSource) -> np.ndarray:
    """Places of the annotations of the evaluated images."""
    offsets = source.index.offsets
    return np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in source.rows.tolist()])


def _metric(truth: COCO, rows: np.ndarray, images: list[int]) -> tuple[COCOeval, float]:
    """The metric of detections, and the seconds that its accumulation took."""
    metric = COCOeval(truth, truth.loadRes(rows), "bbox")
    metric.params.imgIds = images
    metric.evaluate()
    begun = time.perf_counter()
    metric.accumulate()
    took = time.perf_counter() - begun
    metric.summarize()
    return metric, took


def _interval(truth: COCO, metric: COCOeval, images: list[int], took: float) -> dict[str, Any] | None:
    """Where the mAP of other samples of the same images lies: compared with no detection at all, whose mAP is 0."""
    samples = min(MOST_SAMPLES, int(BOOTSTRAP_S / (2 * took + 1e-9)))
    if samples < FEWEST_SAMPLES or metric.stats[0] < 0:
        return None
    nothing, _ = _metric(truth, np.zeros((0, 7)), images)
    told = compare(nothing, metric, n_bootstrap=samples, seed=1, confidence=CONFIDENCE)["ci"]["AP"]
    low, high = float(told["lower"]), float(told["upper"])
    return {"AP": float(metric.stats[0]), "low": low, "high": high, "samples": samples, "confidence": CONFIDENCE}


def _mean(precision: np.ndarray) -> float | None:
    """The mean over what the ground truth has boxes for; -1 stands for what it has none."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None
