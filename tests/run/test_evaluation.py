"""COCO's twelve numbers: equal to pycocotools' on golden's detections, by either library, in every awkward case."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssd.compute.device import Abilities
from ssd.config import Config
from ssd.data import EvalBatch
from ssd.data.annotations import parse_annotations
from ssd.data.index import ground_truth
from ssd.ops import Detections
from ssd.prepare.drawn import draw_set
from ssd.run.evaluation import STATISTICS, as_record, bbox_statistics, blank_batches, detect_all, detection_rows, score
from ssd.run.sources import EvalSource

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


def test_rows_are_in_pixels_with_our_own_numbers() -> None:
    found = Detections(
        boxes=torch.tensor([[[0.1, 0.2, 0.5, 0.4], [0, 0, 1, 1]], [[-0.1, 0, 0.5, 1.2], [0, 0, 0, 0]]]),
        scores=torch.tensor([[0.9, 0.8], [0.7, 0.0]]),
        labels=torch.tensor([[1, 2], [2, 0]]),
        count=torch.tensor([2, 1]),
    )
    # numbers beyond 2**24 are not exact in float32, which the original sent ids through
    images = torch.zeros(2, 300, 300, 3, dtype=torch.uint8)
    batch = EvalBatch(images, (2**24 + 1, 5), torch.tensor([[200, 100], [50, 10]]))
    rows = detection_rows(found, batch)
    expected = [
        [2**24 + 1, 20, 20, 80, 20, 0.9, 1],
        [2**24 + 1, 0, 0, 200, 100, 0.8, 2],
        [5, -5, 0, 30, 12, 0.7, 2],
    ]
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-5)
    assert rows[0, 0] == 2**24 + 1


class Mean(nn.Module):
    """A network that gives each image's mean, and notes whether it was in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.modes.append(self.training)
        return images.float().mean((1, 2, 3)), images


@pytest.mark.parametrize("training", [True, False])
def test_every_image_of_every_batch_is_detected_in_order(training: bool) -> None:
    asked: list[tuple[int, float]] = []

    def augment(images: Tensor, draws: None, *, channels: int, **layout: Any) -> Tensor:
        return images.permute(0, 3, 1, 2)

    def detect(means: Tensor, images: Tensor, defaults: Any, *, score_threshold: float) -> Detections:
        asked.append((len(means), score_threshold))
        boxes = torch.tensor([0.0, 0.0, 0.5, 1.0]).expand(len(means), 1, 4)
        ones = torch.ones(len(means), dtype=torch.int64)
        return Detections(boxes, (means / 100)[:, None], ones[:, None], ones)

    model, ops = Mean().train(training), SimpleNamespace(augment=augment, detect=detect)
    config = Config(data_backend="synthetic", precision="fp32", nms_valid_thresh=0.125)
    images = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None, None].expand(3, 300, 300, 3)
    sizes = torch.tensor([[40, 20], [60, 20], [80, 20]])
    batches = [EvalBatch(images[:2], (7, 3), sizes[:2]), EvalBatch(images[2:], (5,), sizes[2:])]
    some: Any = (ops, None, Abilities(torch.device("cpu")), config)
    rows = detect_all(model, batches, *some)
    expected = [[7, 0, 0, 20, 20, 0.1, 1], [3, 0, 0, 30, 20, 0.2, 1], [5, 0, 0, 40, 20, 0.3, 1]]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert asked == [(2, 0.125), (1, 0.125)]
    assert model.modes == [False, False], "detection runs in evaluation mode"
    assert model.training is training
    assert detect_all(model, [], *some).shape == (0, 7), "a rank without images has no row"


@pytest.mark.parametrize(("images", "sizes"), [(619, {160, 139}), (160, {160}), (320, {160}), (7, {7}), (0, set())])
def test_a_warm_up_meets_every_size_of_an_evaluation_s_batches(images: int, sizes: set[int]) -> None:
    """4,952 images over 8 processes are 619 each: three batches of 160, and one of 139."""
    batches = blank_batches(images, 160)
    assert [len(batch.images) for batch in batches] == sorted(sizes, reverse=True)
    assert sizes == {len(range(start, min(start + 160, images))) for start in range(0, images, 160)}
    assert all(len(batch.rows) == len(batch.sizes) == len(batch.images) for batch in batches)


def drawn_truth(tmp_path: Path, library: str, change: Callable[[dict], None]) -> tuple[EvalSource, np.ndarray]:
    """A drawn set whose annotation file was changed, and its ground truth, moved a little, as detections."""
    draw_set(tmp_path / "set", train=2, val=8, seed=5)
    path = tmp_path / "set" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    index = parse_annotations(path)
    rows = index.with_boxes()
    owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    moved = index.bboxes + np.random.default_rng(0).normal(0, 4, index.bboxes.shape)
    scores = np.random.default_rng(1).integers(1, 4, len(owner)) / 4  # many are equal: the metric orders them by image
    found = np.column_stack([owner, moved, scores, index.labels])
    return EvalSource((), index, rows, ground_truth(index, rows)), found


def add_to_ids(content: dict, rename: Callable[[int], object]) -> None:
    for image in content["images"]:
        image["id"] = rename(image["id"])
    for annotation in content["annotations"]:
        annotation["image_id"] = rename(annotation["image_id"])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "rename",
    [lambda n: n + 1_600_000_000_000_000_000, lambda n: n + 10**40, lambda n: f"{n:030d}", lambda n: n - 10**6],
    ids=["beyond 2**53", "beyond 64 bits", "text", "negative"],
)
def test_the_score_does_not_depend_on_the_ids(tmp_path: Path, library: str, rename: Callable[[int], object]) -> None:
    """All twelve numbers to the bit: such ids were carried through a float64, and the AP fell to 0."""
    plain, found = drawn_truth(tmp_path / "plain", library, lambda content: None)
    renamed, same = drawn_truth(tmp_path / "renamed", library, lambda content: add_to_ids(content, rename))
    np.testing.assert_array_equal(found, same)
    expected = score(plain, found, library)
    assert 0.05 < expected[0] < 0.95
    assert score(renamed, same, library).tolist() == expected.tolist()


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_score_is_that_of_the_file_with_its_own_ids(tmp_path: Path, library: str) -> None:
    source, found = drawn_truth(tmp_path, library, lambda content: None)
    ids = np.array(source.index.image_ids.tolist())
    categories = np.array(source.index.category_ids.tolist())
    theirs = np.column_stack([ids[found[:, 0].astype(int)], found[:, 1:6], categories[found[:, 6].astype(int) - 1]])
    expected = bbox_statistics(Path(source.index.source), theirs, ids.tolist(), library)
    assert score(source, found, library).tolist() == expected.tolist()


@pytest.mark.parametrize("library", LIBRARIES)
def test_annotation_ids_from_0_score_one(tmp_path: Path, library: str) -> None:
    """pycocotools takes the id 0 of an annotation for "no match"."""

    def from_0(content: dict) -> None:
        for number, annotation in enumerate(content["annotations"]):
            annotation["id"] = number

    source, found = drawn_truth(tmp_path, library, from_0)
    found[:, 1:5] = source.index.bboxes
    assert score(source, found, library)[0] == pytest.approx(1)


def test_nothing_to_score_is_no_number() -> None:
    """COCO's libraries write -1, which is no score."""
    record = as_record(np.array([0.25, 0.5, 0.0, -1, 0.1, 0.2, 0, 0, 0, -1, 0, 0]))
    assert list(record) == list(STATISTICS)
    assert (record["AP"], record["AP75"], record["AP_small"], record["AR_small"]) == (0.25, 0.0, None, None)


def test_the_library_that_is_asked_for_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both agree, so that only a stand-in tells which one was used."""
    monkeypatch.setattr("ssd.run.evaluation._pycocotools", lambda *arguments: arguments[2])
    truth_of_one, rows = truth([(1, [10.0, 10, 30, 20], 3, 0)]), np.array([[1, 10.0, 10, 30, 20, 0.9, 3]])
    assert bbox_statistics(truth_of_one, rows, [1, 2], "pycocotools") == [1, 2]
    assert bbox_statistics(truth_of_one, rows, [1, 2])[0] == pytest.approx(1)
