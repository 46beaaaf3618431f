"""COCO's twelve numbers: equal to pycocotools' on golden's detections, by either library, in every awkward case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ssd.data import EvalBatch
from ssd.ops import Detections
from ssd.run.evaluation import STATISTICS, bbox_statistics, blank_batches, detection_rows

LIBRARIES = ("hotcoco", "pycocotools")


@pytest.fixture(scope="module")
def detections(golden: Path) -> np.ndarray:
    found = json.loads((golden / "cocoeval_detections.json").read_text())
    return np.array([[d["image_id"], *d["bbox"], d["score"], d["category_id"]] for d in found], dtype=np.float64)


@pytest.fixture(scope="module")
def annotations(golden: Path) -> Path:
    return golden / "instances_val2017.json"


def image_ids(annotations: Path) -> list[int]:
    return [image["id"] for image in json.loads(annotations.read_text())["images"]]


@pytest.mark.parametrize("library", LIBRARIES)
def test_golden_statistics(golden: Path, annotations: Path, detections: np.ndarray, library: str) -> None:
    expected = json.loads((golden / "cocoeval_stats.json").read_text())["stats"]
    stats = bbox_statistics(annotations, detections, image_ids(annotations), library)
    np.testing.assert_allclose(stats, expected, atol=1e-9, rtol=0)
    assert len(STATISTICS) == len(stats) == 12


@pytest.mark.parametrize("library", LIBRARIES)
def test_real_areas_are_used(annotations: Path, detections: np.ndarray, library: str) -> None:
    """The original's validation file had every area set to 1, which made these numbers meaningless."""
    stats = bbox_statistics(annotations, detections, image_ids(annotations), library)
    assert all(stats[STATISTICS.index(size)] > 0 for size in ("AP_small", "AP_medium", "AP_large"))


def truth(boxes: list[tuple[int, list[float], int, int]]) -> dict:
    """Ground truth of two 100 x 100 images from (image, bbox, category, crowd)."""
    return {
        "images": [{"id": i, "width": 100, "height": 100, "file_name": f"{i}.jpg"} for i in (1, 2)],
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
        "annotations": [
            {"id": n + 1, "image_id": i, "bbox": box, "category_id": c, "iscrowd": crowd, "area": box[2] * box[3]}
            for n, (i, box, c, crowd) in enumerate(boxes)
        ],
    }


@pytest.mark.parametrize("library", LIBRARIES)
def test_ground_truth_as_detections_scores_one(library: str) -> None:
    boxes = [(1, [10.0, 10, 30, 20], 3, 0), (1, [50.0, 50, 20, 20], 7, 0), (2, [0.0, 0, 100, 100], 7, 0)]
    rows = np.array([[i, *box, 0.9, c] for i, box, c, _ in boxes])
    assert bbox_statistics(truth(boxes), rows, [1, 2], library)[0] == pytest.approx(1)


@pytest.mark.parametrize("library", LIBRARIES)
def test_worked_by_hand(library: str) -> None:
    """A right box of 600 square pixels, a wrong one of 600, a right one of 2,000, in this order of scores.

    Precision is 1 up to recall 0.5, which is 51 of the 101 points, and 2/3 at the 50 above it. A wrong box outside an
    area range is ignored there, and a range without any truth has no number, -1.
    """
    boxes = [(1, [10.0, 10, 30, 20], 3, 0), (1, [50.0, 50, 50, 40], 3, 0)]
    rows = np.array([[1, 10, 10, 30, 20, 0.9, 3], [1, 60, 10, 30, 20, 0.8, 3], [1, 50, 50, 50, 40, 0.7, 3]])
    mean = (51 + 50 * 2 / 3) / 101
    by_hand = [mean, mean, mean, 1, 1, -1, 0.5, 1, 1, 1, 1, -1]
    np.testing.assert_allclose(bbox_statistics(truth(boxes), rows, [1], library), by_hand, rtol=0, atol=1e-9)


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_detection_at_all_scores_zero(library: str) -> None:
    """pycocotools alone raises IndexError here, as the original did."""
    assert bbox_statistics(truth([(1, [10.0, 10, 30, 20], 3, 0)]), np.zeros((0, 7)), [1, 2], library)[0] == 0.0


@pytest.mark.parametrize("library", LIBRARIES)
def test_crowd_detections_count_neither_way(library: str) -> None:
    boxes = [(1, [10.0, 10, 30, 20], 3, 0), (1, [50.0, 50, 40, 40], 3, 1)]
    rows = np.array([[1, 10, 10, 30, 20, 0.8, 3], [1, 50, 50, 40, 40, 0.9, 3]], dtype=float)
    assert bbox_statistics(truth(boxes), rows, [1, 2], library)[0] == pytest.approx(1)


@pytest.mark.parametrize("library", LIBRARIES)
def test_only_the_listed_images_count(library: str) -> None:
    rows = np.array([[1, 10, 10, 30, 20, 0.8, 3], [2, 0, 0, 50, 50, 0.9, 3]], dtype=float)
    boxes = [(1, [10.0, 10, 30, 20], 3, 0)]
    assert bbox_statistics(truth(boxes), rows, [1], library)[0] == pytest.approx(1)
    assert bbox_statistics(truth(boxes), rows, [1, 2], library)[0] == pytest.approx(0.5)


def test_rows_are_in_pixels_with_coco_s_ids() -> None:
    found = Detections(
        boxes=torch.tensor([[[0.1, 0.2, 0.5, 0.4], [0, 0, 1, 1]], [[-0.1, 0, 0.5, 1.2], [0, 0, 0, 0]]]),
        scores=torch.tensor([[0.9, 0.8], [0.7, 0.0]]),
        labels=torch.tensor([[1, 2], [2, 0]]),
        count=torch.tensor([2, 1]),
    )
    # ids beyond 2**24 are not exact in float32, which the original sent them through
    images = torch.zeros(2, 300, 300, 3, dtype=torch.uint8)
    batch = EvalBatch(images, (2**24 + 1, 5), torch.tensor([[200, 100], [50, 10]]))
    rows = detection_rows(found, batch, np.array([3, 7]))
    expected = [
        [2**24 + 1, 20, 20, 80, 20, 0.9, 3],
        [2**24 + 1, 0, 0, 200, 100, 0.8, 7],
        [5, -5, 0, 30, 12, 0.7, 7],
    ]
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-5)
    assert rows[0, 0] == 2**24 + 1


@pytest.mark.parametrize(("images", "sizes"), [(619, {160, 139}), (160, {160}), (320, {160}), (7, {7}), (0, set())])
def test_a_warm_up_meets_every_size_of_an_evaluation_s_batches(images: int, sizes: set[int]) -> None:
    """4,952 images over 8 processes are 619 each: three batches of 160, and one of 139."""
    batches = blank_batches(images, 160)
    assert [len(batch.images) for batch in batches] == sorted(sizes, reverse=True)
    assert sizes == {len(range(start, min(start + 160, images))) for start in range(0, images, 160)}
    assert all(len(batch.image_ids) == len(batch.sizes) == len(batch.images) for batch in batches)
