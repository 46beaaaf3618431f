"""The drawn set: COCO's layout, truthful boxes, different images in training and validation, the same from one seed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ssd.data.annotations import parse_annotations
from ssd.data.index import check_categories
from ssd.data.loader import Reading, ThreadLoader
from ssd.data.sampler import Sampler
from ssd.prepare.drawn import MAX_OVERLAP, draw_image, draw_set


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "set"
    draw_set(folder, train=30, val=8, seed=3)
    return folder


def test_the_layout_is_cocos(drawn):
    for split, count in (("train2017", 30), ("val2017", 8)):
        content = json.loads((drawn / f"annotations/instances_{split}.json").read_text())
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert {image["file_name"] for image in content["images"]} == {p.name for p in (drawn / split).iterdir()}
        assert len(content["images"]) == count
        for image in content["images"]:
            with Image.open(drawn / split / image["file_name"]) as file:
                assert file.format == "JPEG"
                assert file.size == (image["width"], image["height"])
        for annotation in content["annotations"]:
            xs, ys = annotation["segmentation"][0][::2], annotation["segmentation"][0][1::2]
            left, top, width, height = annotation["bbox"]
            assert (min(xs), min(ys)) == pytest.approx((left, top), abs=0.02)
            assert (max(xs), max(ys)) == pytest.approx((left + width, top + height), abs=0.03)
            assert 0.3 * width * height < annotation["area"] < width * height


def test_it_is_a_set_to_train_on(drawn):
    train, val = (parse_annotations(drawn / f"annotations/instances_{s}2017.json") for s in ("train", "val"))
    check_categories(train, val, 4)
    assert train.category_ids.tolist() == [1, 3, 7], "ids with gaps, as COCO's"
    assert len(train.with_boxes()) == 30
    assert set(train.labels) == {1, 2, 3}
    assert len({tuple(size) for size in train.sizes.tolist()}) >= 3
    batch = next(ThreadLoader(train, Sampler(30, 30, 0), Reading(drawn / "train2017")).epoch(1))
    assert len(batch.rows) == 30


def test_boxes_lie_on_what_is_drawn():
    """Inside the box along its middle row the pixels differ from the background more than outside it."""
    for number in range(20):
        picture, shapes = draw_image(np.random.default_rng(number))
        pixels = np.asarray(picture).astype(float)
        frontmost = shapes[-1]
        left, top, right, bottom = frontmost.box
        x, y = (sum(axis) / len(axis) for axis in zip(*frontmost.outline, strict=True))
        patch = pixels[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].reshape(-1, 3)
        assert 0 <= left < right <= picture.width
        assert 0 <= top < bottom <= picture.height
        corner = pixels[:12, :12].reshape(-1, 3)
        inside_any = any(s.box[0] < 12 and s.box[1] < 12 for s in shapes)
        assert inside_any or np.abs(np.median(patch, 0) - np.median(corner, 0)).max() > 20


def test_shapes_hide_little_of_each_other():
    for number in range(60):
        _, shapes = draw_image(np.random.default_rng((1, number)))
        assert 1 <= len(shapes) <= 4
        for k, a in enumerate(shapes):
            for b in shapes[:k]:
                across = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
                down = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
                smaller = min((s.box[2] - s.box[0]) * (s.box[3] - s.box[1]) for s in (a, b))
                assert max(0, across) * max(0, down) <= MAX_OVERLAP * smaller + 1e-9


def test_a_set_is_a_function_of_its_seed_and_its_splits_differ(drawn, tmp_path):
    draw_set(tmp_path / "again", train=8, val=8, seed=3)
    draw_set(tmp_path / "other", train=8, val=8, seed=4)
    first = [(drawn / "train2017" / f"{k:012d}.jpg").read_bytes() for k in range(1, 9)]
    assert [(tmp_path / "again/train2017" / f"{k:012d}.jpg").read_bytes() for k in range(1, 9)] == first
    others = [
        file.read_bytes() for folder in ("other/train2017", "again/val2017") for file in (tmp_path / folder).iterdir()
    ]
    assert not set(first) & set(others)
