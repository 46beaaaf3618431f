"""The synthetic set: repeatable, truthful about its boxes, and delivered as a real one is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssd.data import TrainBatch
from ssd.data.index import check_categories, ground_truth
from ssd.data.loader import ThreadLoader
from ssd.data.sampler import Sampler
from ssd.data.synthetic import CycledLoader, SyntheticEvalLoader, SyntheticLoader, _colour, make_synthetic


def test_a_set_is_a_function_of_its_seed():
    (index, images), (again, same) = make_synthetic(6, 4, 1), make_synthetic(6, 4, 1)
    other_index, other = make_synthetic(6, 4, 2)
    assert torch.equal(images, same)
    np.testing.assert_array_equal(index.bboxes, again.bboxes)
    assert index.sha256 == again.sha256 != other_index.sha256
    assert not torch.equal(images, other)


def test_boxes_lie_on_their_rectangles():
    index, images = make_synthetic(20, 5, 3)
    check_categories(index, index, 5)
    assert len(index.with_boxes()) == 20
    for row in range(20):
        boxes, labels = index.image_boxes(row)
        assert 1 <= len(boxes) <= 3
        painted = torch.zeros(300, 300, dtype=torch.bool)
        for box, label in zip((boxes * 300).round().astype(int), labels, strict=True):
            left, top, right, bottom = box.tolist()
            inside = images[row, top:bottom, left:right].reshape(-1, 3)
            assert (inside == inside[0]).all(), f"one colour for class {label}"
            painted[top:bottom, left:right] = True
        outside = images[row][~painted]
        assert outside.min() >= 90
        assert outside.max() < 150


def test_every_class_has_its_colour():
    index, images = make_synthetic(60, 4, 3)
    colours = {}
    for row in range(60):
        for box, label in zip(*index.image_boxes(row), strict=True):
            x, y = ((box[:2] + box[2:]) / 2 * 300).astype(int)
            colours.setdefault(int(label), set()).add(tuple(images[row, y, x].tolist()))
    assert {label: len(found) for label, found in colours.items()} == {1: 1, 2: 1, 3: 1}
    assert len(set.union(*colours.values())) == 3


def test_batches_are_those_of_any_backend():
    index, images = make_synthetic(10, 4, 0)
    loader = SyntheticLoader(index, images, Sampler(len(index), 2, 5, accumulation=2))
    assert (loader.samples, loader.steps_per_epoch, loader.repeats) == (10, 3, 2)
    assert {name for name in dir(loader) if not name.startswith("_")} >= {"epoch", "skipped", "steps_per_epoch"}
    assert hasattr(ThreadLoader, "epoch")
    whole = list(loader.epoch(1))
    assert len(whole) == 6
    for batch in whole:
        assert isinstance(batch, TrainBatch)
        assert (batch.images.shape, batch.images.dtype) == ((2, 300, 300, 3), torch.uint8)
        for row, at in enumerate(batch.rows):
            assert torch.equal(batch.images[row], images[at])
            boxes, labels = index.image_boxes(at)
            if batch.flip[row]:
                boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
            np.testing.assert_allclose(batch.boxes[row, : len(boxes)], boxes, atol=1e-6)
            assert batch.labels[row, : len(labels)].tolist() == labels.tolist()
    resumed = list(loader.epoch(1, first_step=1))
    assert [batch.rows for batch in resumed] == [batch.rows for batch in whole[2:]]
    assert torch.equal(resumed[0].factors, whole[2].factors)


def test_a_few_batches_are_made_once_and_repeated_in_epochs_of_any_length(monkeypatch):
    """No host work grows with the batch: after the first batches the loader only hands out what it holds."""
    index, images = make_synthetic(12, 4, 0)
    loader = CycledLoader(index, images, Sampler(117_266, 4, 5, rank=1, world_size=2, accumulation=2), 3)
    made = list(SyntheticLoader(index, images, Sampler(12, 4, 5, rank=1, world_size=2)).epoch(1))
    monkeypatch.setattr(SyntheticLoader, "epoch", None)
    assert (loader.steps_per_epoch, loader.samples) == (7330, 12)
    first, again = list(loader.epoch(1)), list(loader.epoch(2))
    assert len(first) == 2 * 7330
    assert len({id(batch) for batch in first}) == 3
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert all(batch is first[number % 3] for number, batch in enumerate(first))
    resumed = list(loader.epoch(1, first_step=7300))
    assert all(one is other for one, other in zip(resumed, first[2 * 7300 :], strict=True))
    assert [batch.rows for batch in first[:2]] == [batch.rows for batch in made]


@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_sees_each_image_once_and_its_truth(world_size):
    index, images = make_synthetic(7, 4, 0)
    found = []
    for rank in range(world_size):
        loader = SyntheticEvalLoader(index, images, np.arange(7)[rank::world_size], batch_size=2)
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            assert batch.sizes.tolist() == [[300, 300]] * len(batch.rows)
            for row, at in enumerate(batch.rows):
                assert torch.equal(batch.images[row], images[at])
                found.append(at)
    assert sorted(found) == [image["id"] for image in ground_truth(index)["images"]]


def test_a_seed_gives_what_it_gave():
    """Rectangles of the first two images of seed 1, which every run of the smoke config trains on."""
    index, images = make_synthetic(2, 4, 1)
    assert index.bboxes.tolist() == [[151.0, 0.0, 96.0, 118.0], [2.0, 151.0, 100.0, 97.0], [2.0, 152.0, 67.0, 114.0]]
    assert index.labels.tolist() == [3, 3, 3]
    assert index.areas.tolist() == [width * height for _, _, width, height in index.bboxes.tolist()]
    assert index.source == "synthetic set of 2 images, seed 1"
    assert list(index.file_names) == ["synthetic 1", "synthetic 2"]
    assert (index.image_ids.tolist(), list(index.category_names)) == ([1, 2], ["colour 1", "colour 2", "colour 3"])
    assert images[:, :2, 0].tolist() == [[[91, 97, 91], [125, 130, 107]], [[102, 95, 144], [144, 118, 97]]]


def test_colours_of_three_classes_are_a_third_of_the_circle_apart():
    """Hues of 0, 120 and 240 degrees, saturation and value 0.9: 229.5 and 22.95."""
    assert [_colour(label, 4) for label in (1, 2, 3)] == [(229, 22, 22), (22, 229, 22), (22, 22, 229)]
