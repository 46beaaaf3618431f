"""COCO's metric by hotcoco, which a run uses, and by pycocotools, its peer, in turn on the same detections.

    python bench/metric.py [--images 1000] [--rounds 3] [--quick]

The memory of a metric at COCO's size is that of 990,000 detections on 4,952 images, in a process of its own: how much
more it holds at its peak than before, with the detections and the ground truth in memory already.

Ground truth and 200 detections an image are drawn from a seed: 7 boxes an image in 80 categories, 1% of them crowds; a
third of the detections lie near a box. Each time is that of a run's evaluation: arrays in, twelve numbers out.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, alternate, bounded, compared, parser, spread, write_row

from ssd.run.evaluation import bbox_statistics
from ssd.vendor import load_vendor

BOXES, DETECTIONS, CATEGORIES, SIDE = 7, 200, 80, 640
LIBRARIES = ("hotcoco", "pycocotools")
EVALUATED, DETECTIONS_AT_SIZE = 4_952, 990_000
"""Images and detections of an evaluation of COCO: 200 an image."""
MEMORY = """
import sys
sys.path[:0] = sys.argv[1:3]
from measure import held_mb, peak_anew
from metric import bbox_statistics, drawn
truth, rows = drawn(int(sys.argv[3]), seed=0)
ids, rows = [image["id"] for image in truth["images"]], rows[:int(sys.argv[4])]
import hotcoco

peak_anew()
before = held_mb("VmRSS")
bbox_statistics(truth, rows, ids)
print(held_mb("VmHWM") - before)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """One row. 1 where the two do not agree on the twelve numbers."""
    flags = parser(__doc__)
    flags.add_argument("--images", type=int, default=1000)
    flags.add_argument("--rounds", type=int, default=3)
    asked = flags.parse_args(argv)
    images, rounds = (20, 1) if asked.quick else (asked.images, asked.rounds)
    truth, rows = drawn(images, seed=0)
    ids = [image["id"] for image in truth["images"]]
    statistics_of = {library: bbox_statistics(truth, rows, ids, library) for library in LIBRARIES}
    calls = {library: partial(bbox_statistics, truth, rows, ids, library) for library in LIBRARIES}
    seconds = alternate(calls, rounds, warm_up=0)
    median = {library: statistics.median(times) for library, times in seconds.items()}
    difference = float(np.abs(statistics_of["hotcoco"] - statistics_of["pycocotools"]).max())
    row = {
        "images": images,
        "detections": len(rows),
        "hotcoco_s": round(median["hotcoco"], 4),
        "pycocotools_s": round(median["pycocotools"], 4),
        "times_faster": round(median["pycocotools"] / median["hotcoco"], 2),
        "largest_difference": difference,
        "spread": spread(seconds),
        "rounds": rounds,
    }
    at_size = (20, 4000) if asked.quick else (EVALUATED, DETECTIONS_AT_SIZE)
    row["memory_images"], row["memory_detections"] = at_size
    row["memory_mb"] = memory = memory_of(*at_size)
    items = [
        compared(
            f"the metric, {len(rows):,} detections, one thread",
            seconds,
            "hotcoco",
            "pycocotools",
            least=60,
            peer=f"pycocotools {version('pycocotools')}",
            limit="hotcoco's matching; the ground truth as Python objects",
        ),
        bounded(f"its memory, {at_size[1]:,} detections", memory, "MB", most=600, limit="hotcoco's copies of rows"),
    ]
    write_row("metric", asked, load_vendor("cpu"), row, items)
    return int(difference > 1e-9)


def memory_of(images: int, detections: int) -> float:
    """MB that a process holds more at the peak of the metric than before it."""
    command = [
        sys.executable,
        "-c",
        MEMORY,
        str(ROOT / "base"),
        str(Path(__file__).parent),
        str(images),
        str(detections),
    ]
    return round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout), 1)


def drawn(images: int, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Ground truth in COCO's format, and detections (n, 7): image id, x, y, width, height, score, category id."""
    r = np.random.default_rng(seed)
    size = 8 + (SIDE / 2 - 8) * r.random((images, BOXES, 2)) ** 2
    corner = (SIDE - size) * r.random((images, BOXES, 2))
    kind = r.integers(1, CATEGORIES + 1, (images, BOXES))
    crowd = r.random((images, BOXES)) < 0.01
    annotations = [
        {
            "id": image * BOXES + box + 1,
            "image_id": image + 1,
            "category_id": int(kind[image, box]),
            "bbox": [*corner[image, box].tolist(), *size[image, box].tolist()],
            "area": float(size[image, box].prod()) * 0.7,
            "iscrowd": int(crowd[image, box]),
        }
        for image in range(images)
        for box in range(BOXES)
    ]
    truth = {
        "images": [{"id": image + 1, "width": SIDE, "height": SIDE} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": c, "name": str(c)} for c in range(1, CATEGORIES + 1)],
    }
    near = r.integers(BOXES, size=(images, DETECTIONS))
    found = np.concatenate([np.take_along_axis(x, near[..., None], 1) for x in (corner, size)], axis=2)
    found += r.normal(0, 6, found.shape)
    label = np.take_along_axis(kind, near, 1)
    astray = r.random((images, DETECTIONS)) < 2 / 3
    found[astray, :2] = (SIDE - 40) * r.random((int(astray.sum()), 2))
    ids = np.repeat(np.arange(1, images + 1), DETECTIONS)
    score = r.random((images, DETECTIONS))
    rows = np.column_stack((ids, found.reshape(-1, 4).clip(1), score.ravel(), label.ravel()))
    return truth, rows.astype(np.float64)


if __name__ == "__main__":
    sys.exit(main())
