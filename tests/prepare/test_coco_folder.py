"""Checking a COCO folder: counts, images that are missing or cut, and a folder left exactly as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ssd.data.folder import SPLITS
from ssd.data.index import clipped_words
from ssd.errors import DataError
from ssd.prepare.coco_folder import SplitReport, check_folder


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_a_sound_folder_and_what_is_in_it(coco, tmp_path):
    before = state(coco)
    for decode_all in (False, True):
        report = check_folder(coco, tmp_path / "cache", decode_all=decode_all, num_workers=2)
        report.require()
    assert report.categories == 3
    assert [(split.split, split.images, split.with_boxes) for split in report.splits] == [
        ("train2017", 13, 13),
        ("val2017", 11, 11),
    ]
    assert "train2017: 13 images, 13 with a box, 25 annotations" in report.lines()
    assert state(coco) == before, "nothing is written into the user's folder"


def test_an_image_that_is_trained_and_evaluated_on_is_a_note(coco, tmp_path):
    """Under any name, by its bytes: numbering the files of each split from 0 is no fault."""
    report = check_folder(coco, tmp_path / "cache", num_workers=2)
    assert report.note == ""
    index = {split: json.loads((coco / f"annotations/instances_{split}.json").read_text()) for split in SPLITS}
    by_size = {(image["width"], image["height"]): image for image in index["train2017"]["images"]}
    image = next(one for one in index["val2017"]["images"] if (one["width"], one["height"]) in by_size)
    twin = by_size[image["width"], image["height"]]
    shutil.copyfile(coco / "train2017" / twin["file_name"], coco / "val2017" / image["file_name"])
    report = check_folder(coco, tmp_path / "cache", num_workers=2)
    assert report.ok
    assert report.lines()[-1].startswith(
        f"val2017 shares 1 image with train2017, {image['file_name']} ({twin['file_name']} there) the first"
    )
    for path in (coco / "train2017" / twin["file_name"], coco / "val2017" / image["file_name"]):
        path.write_bytes(b"")
    assert check_folder(coco, tmp_path / "cache", num_workers=2).note == "", "two empty files are no image"


def test_splits_of_different_categories_are_no_set(coco, tmp_path):
    path = coco / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["categories"].append({"id": 99, "name": "more"})
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="categor"):
        check_folder(coco, tmp_path / "cache")


def test_the_lines_of_a_split():
    """Five names are all named, and of six one is only counted."""
    names = tuple(f"{number}.jpg" for number in range(6))
    report = SplitReport("val2017", 9, 8, 20, 0, names[:5], names[5:], ("empty",))
    assert report.lines() == [
        "val2017: 9 images, 8 with a box, 20 annotations",
        "val2017: 5 missing: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg",
        "val2017: 1 truncated, not a JPEG, or of another size: 5.jpg (empty)",
    ]
    report = replace(report, missing=names, damaged=(), reasons=(), clipped=3)
    assert report.lines()[1:] == [
        f"val2017: {clipped_words(3, 20)}",
        "val2017: 6 missing: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 1 more",
    ]


def test_the_tiny_set_is_sound(tiny_coco, tmp_path):
    report = check_folder(tiny_coco, tmp_path)
    assert report.ok
    assert [(split.images, split.with_boxes) for split in report.splits] == [(50, 49), (50, 48)]


def test_missing_and_cut_images_are_named(coco, tmp_path):
    folder = coco / "train2017"
    (folder / "000000000102.jpg").unlink()
    (folder / "000000000105.jpg").write_bytes(b"")
    whole = (folder / "000000000107.jpg").read_bytes()
    (folder / "000000000107.jpg").write_bytes(whole[: len(whole) // 2])
    (coco / "val2017/000000000100.jpg").write_bytes(b"<html>not found</html>")
    report = check_folder(coco, tmp_path / "cache", num_workers=2)
    train, val = report.splits
    assert train.missing == ("000000000102.jpg",)
    assert train.damaged == ("000000000105.jpg", "000000000107.jpg")
    assert (val.missing, val.damaged) == ((), ("000000000100.jpg",))
    with pytest.raises(DataError, match=r"1 missing: 000000000102\.jpg.*2 truncated.*000000000107\.jpg"):
        report.require()


def test_bytes_after_the_end_are_no_damage(coco, tmp_path):
    path = coco / "train2017/000000000105.jpg"
    path.write_bytes(path.read_bytes() + b"\n\0camera's own data")
    assert check_folder(coco, tmp_path / "cache", num_workers=2).ok


def test_damage_in_the_middle_is_found_by_decoding_all(coco, tmp_path):
    path = coco / "train2017/000000000105.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:300] + content[-2:])
    assert check_folder(coco, tmp_path / "cache", num_workers=2).ok
    assert not check_folder(coco, tmp_path / "cache", decode_all=True, num_workers=2).ok


def test_many_bad_images_are_counted_not_listed(coco, tmp_path):
    for path in (coco / "train2017").iterdir():
        path.unlink()
    lines = check_folder(coco, tmp_path / "cache").lines()
    assert any(line.startswith("train2017: 13 missing:") and line.endswith("and 8 more") for line in lines)


def test_a_folder_without_annotations(coco, tmp_path):
    (coco / "annotations/instances_val2017.json").unlink()
    with pytest.raises(DataError, match=r"instances_val2017\.json: cannot be read"):
        check_folder(coco, tmp_path / "cache")


def test_a_whole_image_of_another_size_is_found_by_decoding_all(coco, tmp_path):
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(coco / "train2017/000000000100.jpg")
    train, _ = check_folder(coco, tmp_path / "cache", decode_all=True, num_workers=2).splits
    assert train.damaged == ("000000000100.jpg",)
