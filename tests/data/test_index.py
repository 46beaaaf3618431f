"""The index of an annotation file: which places an image's annotations have, what is clipped, scorable and sound."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssd.data.annotations import parse_annotations
from ssd.data.index import (
    LARGEST_AREA,
    Index,
    check_categories,
    clipped_words,
    ground_truth,
    leaves_folder,
    require_scorable,
    require_sound,
)
from ssd.data.texts import Texts
from ssd.errors import ConfigError, DataError


def index_of(folder: Path, *annotations: dict) -> Index:
    """Three images of 100 x 50 pixels, ids 7, 8 and 9, with the annotations given."""
    usual = {"category_id": 4, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 50} for i in (7, 8, 9)],
        "categories": [{"id": 4, "name": "a"}, {"id": 6, "name": "b"}],
        "annotations": [{"id": n + 1, "image_id": 7, **usual, **given} for n, given in enumerate(annotations)],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return parse_annotations(path)


def test_the_places_of_some_images_annotations(tmp_path: Path) -> None:
    index = index_of(tmp_path, {"image_id": 7}, {"image_id": 7}, {"image_id": 9})
    assert index.annotations_of(np.array([2, 0])).tolist() == [2, 0, 1]
    assert index.annotations_of(np.array([1])).tolist() == []
    none = index.annotations_of(np.zeros(0, np.int64))
    assert (none.tolist(), none.dtype) == ([], np.int64)


def test_the_usable_boxes_of_an_image(tmp_path: Path) -> None:
    empty = {"image_id": 8, "bbox": [10, 10, 0, 20]}
    index = index_of(tmp_path, {"image_id": 7}, empty, {"image_id": 8, "category_id": 6, "bbox": [50, 0, 50, 25]})
    boxes, labels = index.image_boxes(1)
    assert boxes.tolist() == [[0.5, 0, 1, 0.5]]
    assert labels.tolist() == [2]
    assert index.image_boxes(2)[1].tolist() == []
    assert index.with_boxes().tolist() == [0, 1]


def test_the_metric_gets_numbers_for_ids(tmp_path: Path) -> None:
    index = index_of(tmp_path, {"image_id": 9, "iscrowd": 1}, {"image_id": 7, "category_id": 6}, {"image_id": 9})
    image = {"width": 100, "height": 50}
    box = {"bbox": [10.0, 10.0, 20.0, 20.0], "area": 400.0}
    found = ground_truth(index)
    assert found == {
        "images": [{"id": n, "file_name": f"{n + 7}.jpg", **image} for n in range(3)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 2, **box, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 1, **box, "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 1, **box, "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    some = ground_truth(index, np.array([2]))
    assert some["images"] == found["images"][2:]
    assert [one["id"] for one in some["annotations"]] == [1, 2]


def test_both_files_list_the_categories_that_num_classes_counts(tmp_path: Path) -> None:
    train = index_of(tmp_path)
    check_categories(train, train, 3)
    with pytest.raises(ConfigError) as wrong_number:
        check_categories(train, train, 81)
    assert str(wrong_number.value) == (
        f"num_classes = 81, but {train.source} lists 2 categories: set num_classes = 3 (one more, for the background)"
    )
    val = replace(train, category_names=Texts.of(["a", "c"]), source="val.json")
    with pytest.raises(DataError) as another:
        check_categories(train, val, 3)
    assert f"{train.source} and val.json list different categories (2 and 2; first difference: id 6, 'b' and 'c')" in (
        str(another.value)
    )


def test_a_box_more_than_a_pixel_out_of_its_image_is_clipped(tmp_path: Path) -> None:
    """COCO's own boxes reach out by a part of a pixel; the image is 100 wide and 50 high."""
    boxes = [[-1, -1, 102, 52], [-1.25, 0, 20, 20], [0, -1.25, 20, 20], [81, 0, 20.25, 20], [0, 31, 20, 20.25]]
    index = index_of(tmp_path, *({"bbox": box, "area": 400} for box in boxes))
    assert index.clipped().tolist() == [False, True, True, True, True]
    assert clipped_words(4, 5000) == "4 of 5,000 boxes reach out of their images and are clipped to them"


def test_what_can_be_scored(tmp_path: Path) -> None:
    crowd, vast = {"iscrowd": 1}, {"area": LARGEST_AREA * 2}
    rows = np.array([0])
    assert require_scorable(index_of(tmp_path, crowd, {}), rows) is None
    assert require_scorable(index_of(tmp_path, {"area": LARGEST_AREA}), rows) is None
    with pytest.raises(DataError, match="each of the 2 annotations of the evaluated images has iscrowd 1, and"):
        require_scorable(index_of(tmp_path, crowd, crowd), rows)
    with pytest.raises(DataError, match=r"has iscrowd 1 or an area that is not 0 to 1e\+10, and"):
        require_scorable(index_of(tmp_path, crowd, vast), rows)
    with pytest.raises(DataError, match="nothing can be scored"):
        require_scorable(index_of(tmp_path, crowd, {"image_id": 8}), rows)
    with pytest.raises(DataError, match="no image has a box with a size"):
        require_scorable(index_of(tmp_path, {"bbox": [10, 10, 0, 20]}), rows)


@pytest.mark.parametrize("name", ["", "/a.jpg", "..", ".", "../a.jpg", "a/../../b.jpg", "a\0.jpg"])
def test_a_name_that_leaves_its_folder(name: str) -> None:
    assert leaves_folder(name)


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "a/../b.jpg", "..a.jpg", "./a.jpg"])
def test_a_name_that_stays_in_its_folder(name: str) -> None:
    assert not leaves_folder(name)


UNSOUND = {
    "id_order": np.array([0, 0, 1]),
    "sizes": np.array([[100, 50], [100, 50], [100, 65_536]]),
    "offsets": np.array([0, 2, 1, 2]),
    "labels": np.array([1, 3]),
    "boxes": np.array([[0.1, 0.2, 0.3, 0.6], [0.1, 0.2, 0.3, 1.1]], np.float32),
    "usable": np.array([True, False]),
    "bboxes": np.array([[10, 10, 20, 20], [10, 10, 20, np.inf]]),
    "areas": np.array([400.0]),
    "iscrowd": np.array([0, 0]),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_arrays_that_cannot_come_from_a_file(name: str, tmp_path: Path) -> None:
    index = index_of(tmp_path, {}, {"image_id": 9})
    require_sound(index)
    with pytest.raises(ValueError, match=name):
        require_sound(replace(index, **{name: UNSOUND[name]}))


@pytest.mark.parametrize("side", [0, 65_536])
def test_sides_that_no_jpeg_has(side: int, tmp_path: Path) -> None:
    index = index_of(tmp_path, {})
    require_sound(replace(index, sizes=np.array([[1, 65_535]] * 3)))
    with pytest.raises(ValueError, match="sizes"):
        require_sound(replace(index, sizes=np.array([[1, 65_535], [side, 1], [1, 1]])))
