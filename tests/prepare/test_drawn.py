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
from ssd.prepare.drawn import MAX_OVERLAP, VERSION, Shape, _overlap, draw_image, draw_set


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


def test_what_a_seed_gives_is_what_it_gave():
    """drawn_2.png keeps seeds 0 to 11 as version 2 drew them, at 32 x 32. Another drawing is another VERSION."""
    with Image.open(__file__.replace("test_drawn.py", f"drawn_{VERSION}.png")) as file:
        kept = np.asarray(file).astype(int)
    assert np.abs(sheet().astype(int) - kept).max() <= 2


def sheet() -> np.ndarray:
    """The pictures of seeds 0 to 11 beside each other, each reduced to 32 x 32."""
    pictures = [draw_image(np.random.default_rng(seed))[0] for seed in range(12)]
    small = [np.asarray(one.resize((32, 32), Image.Resampling.BOX)) for one in pictures]
    return np.vstack([np.hstack(small[row : row + 4]) for row in (0, 4, 8)])


def test_the_corners_of_shapes_are_what_they_were():
    """Corners of what seed 0 draws, to a hundredth of a pixel."""
    _, shapes = draw_image(np.random.default_rng(0))
    assert [(shape.category_id, len(shape.outline)) for shape in shapes] == [(7, 3), (1, 40), (3, 4)]
    assert [(round(x, 2), round(y, 2)) for shape in shapes for x, y in shape.outline[:3]] == [
        (226.78, 366.27),
        (104.55, 302.43),
        (201.54, 230.03),
        (204.96, 110.41),
        (213.76, 104.18),
        (223.43, 99.4),
        (19.41, 227.57),
        (41.43, 118.74),
        (150.26, 140.77),
    ]


def test_area_box_and_overlap_of_shapes():
    rectangle = Shape(3, ((1.0, 2.0), (5.0, 2.0), (5.0, 5.0), (1.0, 5.0)))
    assert rectangle.area == 12
    assert rectangle.box == (1, 2, 5, 5)
    assert Shape(7, ((0.0, 0.0), (0.0, 3.0), (4.0, 0.0))).area == 6
    # 2 x 3 of 12 and of 30; boxes apart, and one inside of another.
    assert _overlap((0, 0, 4, 3), (2, -1, 7, 5)) == 0.5
    assert _overlap((0, 0, 4, 3), (4, 0, 5, 3)) == _overlap((0, 5, 4, 8), (0, 0, 4, 4)) == 0
    assert _overlap((0, 0, 9, 9), (1, 1, 2, 3)) == 1


def test_an_annotation_is_the_shape_s(drawn):
    content = json.loads((drawn / "annotations/instances_val2017.json").read_text())
    assert content["info"] == {
        "description": "drawn shapes in COCO's format",
        "version": "1.0",
        "year": 2017,
        "seed": 3,
    }
    rng = np.random.default_rng((5, 3, 100_001, 0))
    picture, shapes = draw_image(rng)
    image, *_ = content["images"]
    assert (image["id"], image["file_name"], image["width"]) == (100_001, "000000100001.jpg", picture.width)
    found = [one for one in content["annotations"] if one["image_id"] == 100_001]
    assert [one["id"] for one in found] == [1 + n for n in range(len(shapes))]
    for one, shape in zip(found, shapes, strict=True):
        left, top, right, bottom = shape.box
        assert one["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=0.011)
        assert (one["category_id"], one["iscrowd"]) == (shape.category_id, 0)
        assert one["area"] == pytest.approx(shape.area, abs=0.006)
        assert one["segmentation"][0] == pytest.approx([value for point in shape.outline for value in point], abs=0.006)
    assert [one["supercategory"] for one in content["categories"]] == ["shape"] * 3
