"""Annotation files as arrays: what is read, what is refused by which name, and a cache that is never just trusted."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.data.annotations import index_of, parse_annotations, sha256_of
from ssd.data.folder import annotation_file, located, other_layout
from ssd.data.index import check_categories, ground_truth
from ssd.data.index_cache import TEXTS, _array_fields, _cache_file, _read, _save, load_index
from ssd.data.texts import Texts
from ssd.errors import ConfigError, DataError


def instances():
    """A small file: categories out of order, annotations out of order, an image without any, a box without a size."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 7, "file_name": "seven.jpg", "width": 200, "height": 100, "license": 1},
            {"id": 3, "file_name": "tree_é.jpg", "width": 100, "height": 50},
            {"id": 5, "file_name": "five.jpg", "width": 10, "height": 10},
            {"id": 9, "file_name": "nine.jpg", "width": 10, "height": 10},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 90, "bbox": [10, 5, 50, 25], "area": 700.5, "iscrowd": 0},
            {"id": 4, "image_id": 7, "category_id": 2, "bbox": [20, 10, 100, 50], "area": 9, "iscrowd": 1},
            {"id": 2, "image_id": 3, "category_id": 2, "bbox": [95, 45, 10, 10], "area": 50, "iscrowd": 0},
            {"id": 8, "image_id": 9, "category_id": 13, "bbox": [4, 4, 0, 3], "area": 0, "iscrowd": 0},
        ],
        "categories": [{"id": 90, "name": "brush"}, {"id": 2, "name": "bicycle"}, {"id": 13, "name": "sign"}],
    }


def write(tmp_path, content, name="instances.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def same(a, b):
    texts = all(list(getattr(a, name)) == list(getattr(b, name)) for name in TEXTS)
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in _array_fields())
    return texts and arrays and a.sha256 == b.sha256


def test_the_arrays_of_a_small_file(tmp_path):
    index = parse_annotations(write(tmp_path, instances()))
    assert index.image_ids.tolist() == [7, 3, 5, 9]
    assert index.file_names.tolist() == ["seven.jpg", "tree_é.jpg", "five.jpg", "nine.jpg"]
    assert index.offsets.tolist() == [0, 1, 3, 3, 4]
    assert index.category_ids.tolist() == [2, 13, 90]
    assert index.category_names.tolist() == ["bicycle", "sign", "brush"]
    assert index.labels.tolist() == [1, 3, 1, 2]
    assert index.iscrowd.tolist() == [True, False, False, False]
    assert index.areas.tolist() == [9, 700.5, 50, 0]
    expected = [[0.1, 0.1, 0.6, 0.6], [0.1, 0.1, 0.6, 0.6], [0.95, 0.9, 1, 1], [0.4, 0.4, 0.4, 0.7]]
    np.testing.assert_allclose(index.boxes, expected, atol=1e-7)
    assert index.boxes.dtype == np.float32
    assert index.bboxes[2].tolist() == [95, 45, 10, 10], "the metric gets the file's own box, not the clipped one"


def test_images_without_a_usable_box_are_left_out(tmp_path):
    index = parse_annotations(write(tmp_path, instances()))
    assert index.with_boxes().tolist() == [0, 1]
    boxes, labels = index.image_boxes(3)
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)


def test_a_file_without_annotations_has_no_training_image(tmp_path):
    index = parse_annotations(write(tmp_path, instances() | {"annotations": []}))
    assert index.with_boxes().tolist() == []
    assert index.boxes.shape == (0, 4)


def test_tiny_coco_counts(golden):
    train, val = (parse_annotations(golden / f"instances_{s}2017.json") for s in ("train", "val"))
    assert (len(train), len(train.with_boxes())) == (50, 49)
    assert (len(val), len(val.with_boxes())) == (50, 48)
    assert (train.iscrowd.sum(), val.iscrowd.sum()) == (5, 5)
    assert train.usable.all(), "boxes of crowds are trained on too"
    assert val.category_ids.tolist() == [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    check_categories(train, val, 81)


def test_ground_truth_gives_back_the_file_with_numbers_for_ids(golden):
    """Images keep the order of their ids, in which the metric breaks ties; annotations count from 1, not from 0."""
    path = golden / "instances_val2017.json"
    source, ours = json.loads(path.read_text()), ground_truth(parse_annotations(path))
    ids = [image["id"] for image in source["images"]]
    image_number = {image_id: number for number, image_id in enumerate(sorted(ids))}
    label = {category["id"]: n for n, category in enumerate(sorted(source["categories"], key=lambda c: c["id"]), 1)}
    annotations = sorted(source["annotations"], key=lambda a: ids.index(a["image_id"]))
    assert ours["annotations"] == [
        {
            "id": number,
            "image_id": image_number[a["image_id"]],
            "category_id": label[a["category_id"]],
            **{key: a[key] for key in ("bbox", "area", "iscrowd")},
        }
        for number, a in enumerate(annotations, 1)
    ]
    assert [image["id"] for image in ours["images"]] == [image_number[image_id] for image_id in ids]
    assert ours["categories"] == [{"id": label[c["id"]], "name": c["name"]} for c in source["categories"]]


def test_ground_truth_of_some_rows(tmp_path):
    part = ground_truth(parse_annotations(write(tmp_path, instances())), np.array([1]))
    assert [image["id"] for image in part["images"]] == [0], "3 is the smallest of the ids"
    assert [a["area"] for a in part["annotations"]] == [700.5, 50]


HUGE = 10**40


@pytest.mark.parametrize(
    "rename",
    [
        lambda n: n + 1_600_000_000_000_000_000,
        lambda n: n + HUGE,
        lambda n: -n,
        lambda n: f"{n:024x}",
        lambda n: float(n),
        lambda n: n if n % 2 else f"photo {n}",
    ],
    ids=["beyond 2**53", "beyond 64 bits", "negative", "text", "whole numbers as floats", "mixed"],
)
@pytest.mark.parametrize("what", ["images", "annotations", "categories"])
def test_ids_are_integers_of_any_size_or_text(tmp_path, rename, what):
    """Whatever ids are, the arrays are the same but for the ids, and the ids come back exactly, from the cache too."""
    content, plain = instances(), parse_annotations(write(tmp_path, instances()))
    of = {"images": "image_id", "categories": "category_id"}.get(what)
    for one in content[what]:
        one["id"] = rename(one["id"])
    for annotation in content["annotations"] if of else ():
        annotation[of] = rename(annotation[of])
    path = write(tmp_path, content, "renamed.json")
    parsed, cached = parse_annotations(path), (load_index(path, tmp_path), load_index(path, tmp_path))[1]
    for index in (parsed, cached):
        for name in ("sizes", "offsets", "bboxes", "areas", "iscrowd", "usable"):
            assert np.array_equal(getattr(index, name), getattr(plain, name))
        if what == "images":
            assert index.image_ids.tolist() == [rename(n) for n in (7, 3, 5, 9)]
            assert {type(one) for one in index.image_ids} <= {int, str}
        if what == "categories":
            names = [index.category_names[label - 1] for label in index.labels]
            assert names == ["bicycle", "brush", "bicycle", "sign"]


def test_a_float_that_may_have_lost_digits_is_no_id(tmp_path):
    content = instances()
    content["images"][0]["id"] = content["annotations"][1]["image_id"] = 1.6e18
    with pytest.raises(DataError, match=r"image id 1\.6e\+18 is a number with a fraction, or too large"):
        parse_annotations(write(tmp_path, content))


def test_a_number_and_its_text_are_two_ids(tmp_path):
    content = instances()
    content["annotations"][0]["image_id"] = "3"
    with pytest.raises(DataError, match=r"annotation 1 is of image '3', which is not listed \(3 is: write both"):
        parse_annotations(write(tmp_path, content))


def broken(change):
    """Each way a file can be wrong, and what its message must name."""
    content = instances()
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("categories"), "categories"),
        (lambda d: d["annotations"][1].pop("bbox"), r"bbox.*annotations"),
        (lambda d: d["annotations"][1].pop("iscrowd"), "iscrowd"),
        (lambda d: d["images"][0].pop("width"), "width"),
        (lambda d: d["images"][0].update(width="200"), "str"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "length 4"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, -3, 4]), "annotation 1 has bbox"),
        (lambda d: d["annotations"][0].update(image_id=77), "annotation 1 is of image 77"),
        (lambda d: d["annotations"][3].update(category_id=14), "annotation 8 is of category 14"),
        (lambda d: d["annotations"][0].update(category_id=10**6), "category 1000000"),
        (lambda d: d["annotations"][0].update(id=8), "annotation id 8 stands 2 times"),
        (lambda d: d["images"][0].update(id=3), "image id 3 stands 2 times"),
        (lambda d: d["categories"][0].update(id=2), "category id 2 stands 2 times"),
        (lambda d: d["images"][2].update(height=0), "image 5 has width and height"),
        (lambda d: d.update(images=[], annotations=[]), "lists no images"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, change, message):
    path = write(tmp_path, broken(change))
    with pytest.raises(DataError, match=message) as caught:
        parse_annotations(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", '{"images": [', "\x00\x01", "not json"])
def test_a_file_that_is_no_annotation_file(tmp_path, content):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match="not an annotation file"):
        load_index(path, tmp_path / "cache")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json: cannot be read"):
        load_index(tmp_path / "absent.json", tmp_path / "cache")


def test_the_second_load_comes_from_the_cache(tmp_path, monkeypatch):
    path, cache = write(tmp_path, instances()), tmp_path / "cache"
    first = load_index(path, cache)
    monkeypatch.setattr("ssd.data.index_cache.parse_annotations", lambda path: pytest.fail("parsed again"))
    second = load_index(path, cache)
    assert same(first, second)
    assert second.sha256 == first.sha256
    assert second.source == str(path)


def test_another_content_has_another_cache(tmp_path):
    cache = tmp_path / "cache"
    path = write(tmp_path, instances())
    load_index(path, cache)
    changed = instances()
    changed["annotations"][0]["category_id"] = 13
    write(tmp_path, changed)
    assert load_index(path, cache).labels.tolist() == [1, 2, 1, 2]
    assert len(list(cache.iterdir())) == 2


@settings(deadline=None, max_examples=40)
@given(cut=st.floats(0, 0.999), flip=st.booleans())
def test_a_damaged_cache_is_built_again(tmp_path_factory, cut, flip):
    """Cut anywhere, or with one byte of an array's data changed, the cache is noticed and replaced."""
    tmp_path = tmp_path_factory.mktemp("damaged")
    path, cache = write(tmp_path, instances()), tmp_path / "cache"
    sound = load_index(path, cache)
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    if flip:
        place = content.index(sound.boxes.tobytes()) + int(cut * sound.boxes.nbytes)
        content[place] ^= 0xFF
        file.write_bytes(content)
    else:
        file.write_bytes(content[: int(cut * len(content))])
    assert same(load_index(path, cache), sound)
    assert same(_read(file, str(path), sound.sha256)[0], sound), "the cache is whole again"


def test_a_cache_of_another_source_is_not_taken(tmp_path):
    cache = tmp_path / "cache"
    path, other = write(tmp_path, instances()), write(tmp_path, instances() | {"annotations": []}, "other.json")
    index = load_index(path, cache)
    load_index(other, cache)
    mine = _cache_file(cache, index.sha256)
    theirs = next(file for file in cache.iterdir() if file != mine)
    os.replace(theirs, mine)
    assert same(load_index(path, cache), index)


def test_nothing_is_written_beside_the_annotations_and_no_temporary_is_left(tmp_path):
    folder, cache = tmp_path / "data", tmp_path / "cache"
    folder.mkdir()
    load_index(write(folder, instances()), cache)
    assert [file.name for file in folder.iterdir()] == ["instances.json"]
    assert [file.suffix for file in cache.iterdir()] == [".arrays"]


def test_an_unwritable_cache_costs_time_not_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    index = load_index(write(tmp_path, instances()), tmp_path / "file")
    assert len(index) == 4
    assert "not cached" in caplog.text


def test_categories_must_agree(tmp_path):
    train = parse_annotations(write(tmp_path, instances()))
    content = instances()
    content["categories"][2]["name"] = "placard"
    val = parse_annotations(write(tmp_path, content, "val.json"))
    with pytest.raises(DataError, match="id 13, 'sign' and 'placard'"):
        check_categories(train, val, 4)
    with pytest.raises(ConfigError, match="set num_classes = 4"):
        check_categories(train, train, 81)
    check_categories(train, train, 4)


@pytest.mark.parametrize("name", ["../train2017/0.jpg", "/etc/shadow", "a/../../b.jpg", "", ".", "a\0b.jpg"])
def test_a_file_name_that_leaves_its_folder_is_refused(tmp_path, name):
    content = instances()
    content["images"][1]["file_name"] = name
    with pytest.raises(DataError, match=r"image 3 has the file_name .* no file inside the folder"):
        parse_annotations(write(tmp_path, content))


def test_true_and_false_are_1_and_0(tmp_path):
    content = instances()
    for annotation in content["annotations"]:
        annotation["iscrowd"] = bool(annotation["iscrowd"])
    assert parse_annotations(write(tmp_path, content)).iscrowd.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "x": NaN}', "NaN is no number in JSON, in line 2"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "deeper in each other"),
        ('{"images": [\n{"id": 1, "file_name": "a", "width": 2, "height": "3"}]}', r"entry 1 of images, in line 2"),
        (
            '{"images": [\n{"id": 1, "file_name": "a", "width": 2, "height": 3},\n{"id": 2}]}',
            r"entry 2 of images, in line 3",
        ),
        (
            b'{"images": [\n\n{"id": 1, "file_name": "\xff", "width": 2, "height": 3}]}',
            "COCO's format: it is not UTF-8 text, in line 3$",
        ),
        ('{"images": []}'.encode("utf-16"), "COCO's format: it is UTF-16 text: save it as UTF-8$"),
        ("[]", "COCO's format: Expected `object`, got `array`$"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, message):
    path = tmp_path / "instances.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        parse_annotations(path)


HERE = "here annotations/instances_train2017.json and annotations/instances_val2017.json are read"
YOLO = f"The folder has YOLO's layout (labels/ with a text file an image): convert it to COCO's; {HERE}"


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ([], ""),
        (["labels/a.txt"], YOLO),
        (["data.yaml"], YOLO),
        (
            ["b/_annotations.coco.json", "a/_annotations.coco.json"],
            f"The folder holds a/_annotations.coco.json: a COCO file in another place; {HERE}",
        ),
        (
            ["Annotations/a.xml", "JPEGImages/a.jpg"],
            f"The folder has Pascal VOC's layout (Annotations/ of XML files): convert it to COCO's; {HERE}",
        ),
        (["Annotations/a.xml"], ""),
    ],
)
def test_a_folder_of_another_layout_gets_a_hint(tmp_path: Path, files: list[str], hint: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert other_layout(tmp_path) == hint
    assert other_layout(tmp_path / "absent") == ""
    path = annotation_file(tmp_path, "val2017")
    with pytest.raises(DataError) as refusal:
        parse_annotations(path)
    reason = "cannot be read (No such file or directory); check data_dir and its permissions"
    assert str(refusal.value) == f"{path}: {reason}" + (f". {hint}" if hint else "")


def test_a_whole_float_among_ids_is_its_integer(tmp_path: Path) -> None:
    content = instances()
    content["images"][0]["id"] = 7.0
    index = parse_annotations(write(tmp_path, content))
    assert index.image_ids.tolist() == [7, 3, 5, 9]
    assert index.offsets.tolist() == [0, 1, 3, 3, 4]


def test_where_an_image_lies_and_what_it_is(tmp_path: Path) -> None:
    path, name, size = located(parse_annotations(write(tmp_path, instances())), 1, tmp_path)
    assert (path, str(name), size) == (str(tmp_path / "tree_é.jpg"), "3", (100, 50))


def test_a_cache_that_others_can_write_is_not_believed(tmp_path, caplog):
    path, cache = write(tmp_path, instances()), tmp_path / "cache"
    load_index(path, cache)
    (file,) = cache.iterdir()
    file.chmod(0o666)
    load_index(path, cache)
    assert "others may write to it (mode 666)" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file_names", Texts.of(["/etc/shadow"] * 4)),
        ("offsets", np.array([0, 1, 3, 3, 99])),
        ("labels", np.array([1, 3, 1, 4])),
        ("sizes", np.zeros((4, 2), np.int64)),
        ("id_order", np.zeros(4, np.int64)),
    ],
)
def test_a_poisoned_cache_is_built_again(tmp_path, caplog, field, value):
    path, cache = write(tmp_path, instances()), tmp_path / "cache"
    sound = load_index(path, cache)
    _save(replace(sound, **{field: value}), _cache_file(cache, sound.sha256))
    assert same(load_index(path, cache), sound)
    assert f"{field} cannot come from an annotation file" in caplog.text


def test_a_dict_gives_the_index_of_its_file(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "seven.jpg", "width": 200, "height": 100}
    box = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 9, "iscrowd": 0}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 3, "name": "three"}]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content, separators=(",", ":")))
    found, parsed = index_of(content, "drawn"), parse_annotations(path)
    assert (found.source, found.sha256) == ("drawn", parsed.sha256)
    assert (list(found.image_ids), list(found.file_names)) == ([7], ["seven.jpg"])
    np.testing.assert_array_equal(found.boxes, parsed.boxes)
    with pytest.raises(DataError, match="drawn: not annotations in COCO's format"):
        index_of(content | {"images": 5}, "drawn")


def test_a_refused_entry_before_endless_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text('{"images": [{"id": 1, "file_name": 5, "width": 8, "height": 8}], "annotations": ' + "[" * 100_000)
    with pytest.raises(DataError, match=r"instances\.json.*file_name`$"):
        parse_annotations(path)


def test_a_refused_entry_that_others_hide_is_named_without_its_number(tmp_path: Path) -> None:
    """What is wrong behind it ends the search for its number; and it is said once."""
    path = tmp_path / "instances.json"
    path.write_text('{"images": [{"id": 1, "file_name": 5, "width": 8, "height": 8}], "annotations": 7}')
    with pytest.raises(DataError, match=r"instances\.json.*file_name`$"):
        parse_annotations(path)


def test_the_sum_of_a_file_and_of_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    with pytest.raises(DataError, match="cannot be read"):
        sha256_of(tmp_path / "absent")
