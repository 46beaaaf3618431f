"""The rate of the loader: what is counted, and between which moments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssd.data.annotations import parse_annotations
from ssd.measure import decoding
from ssd.measure.decoding import decoded_per_second, epochs, jpeg_loader
from ssd.measure.made_images import make_folder


def test_batches_after_the_first_count_until_the_time_is_over(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = parse_annotations(coco / "annotations" / "instances_train2017.json")
    loader = jpeg_loader(index, coco / "train2017", workers=1, batch=4)
    assert epochs(loader)() == 16, "13 images, and three again to fill the last batch"
    wall, cpu = iter([0.0, *range(1, 100)]), iter((10.0, 14.0))
    monkeypatch.setattr(decoding.time, "perf_counter", lambda: next(wall))
    rate, images = decoded_per_second(loader, 5.0, clock=lambda: next(cpu))
    # The look at the clock after the fifth counted batch ends it. It is in the second epoch.
    assert (rate, images) == (20 / 4, 20)


def test_made_pictures_are_of_cocos_size_and_have_every_category(tmp_path: Path) -> None:
    make_folder(tmp_path, num_classes=6, pictures=3, copies=2)
    files = sorted((tmp_path / "train2017").iterdir())
    sizes = [path.stat().st_size for path in files]
    assert len(files) == 6
    assert len(set(sizes)) == 3
    assert 155_000 < sum(sizes) / 6 < 171_000, "train2017 has 163 kB an image"
    train, val = (
        parse_annotations(tmp_path / "annotations" / f"instances_{split}2017.json") for split in ("train", "val")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "train2017", "val2017"]
    content = json.loads((tmp_path / "annotations" / "instances_val2017.json").read_text())
    assert [one["id"] for one in content["annotations"]] == list(range(1, 22))
    assert [one["category_id"] for one in content["annotations"][:6]] == [1, 2, 3, 4, 5, 1]
    assert content["images"][2] == {"id": 3, "file_name": "000000000003.jpg", "width": 640, "height": 480}
    assert {one["image_id"] for one in content["annotations"]} == {1, 2, 3}
    for one in content["annotations"]:
        left, top, width, height = one["bbox"]
        assert one["area"] == width * height
        assert 0 <= left < left + width <= 0.95 * 640
        assert 0 <= top < top + height <= 0.95 * 480
        assert (width >= 64, height >= 48, one["iscrowd"]) == (True, True, 0)
    assert content["categories"][-1] == {"id": 5, "name": "made 5"}
    assert list(train.category_ids) == list(val.category_ids) == [1, 2, 3, 4, 5]
    assert set(train.labels.tolist()) == {1, 2, 3, 4, 5}
    assert len(train.with_boxes()) == 6
    assert len(val.with_boxes()) == 3
    assert epochs(jpeg_loader(train, tmp_path / "train2017", workers=1, batch=3))() == 6, "each can be decoded"
