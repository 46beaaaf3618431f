"""`detect` on folders with good and bad pictures: the good are done, the bad are named, and nothing mixes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.config import Config
from ssd.errors import ConfigError, DataError, MachineError
from ssd.model import build_model
from ssd.run.checkpoint import CHECKPOINT, Checkpoint, save_checkpoint
from ssd.verbs import detect
from ssd.verbs.detect import detect_command

SIZE = (160, 120)
CATEGORIES: list[tuple[int | str, str]] = [(7, "cat\x1b[2J"), (90, "dog")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, with a checkpoint of a network whose weights are drawn."""
    folder = tmp_path_factory.mktemp("run")
    config = Config(width=0.125, pretrained=False, num_classes=3, cuda_graph=True)
    values: dict[str, Any] = {name: {} for name in ("scaler", "inputs", "logs", "seconds")}
    values |= {"seed": 1, "step": 1, "steps_per_epoch": 1, "written": 0.0, "evaluations": []}
    model, _ = build_model(seed=1, num_classes=3, width=0.125)
    for head in (*model.location_heads, *model.class_heads):
        head.weight.data *= 1e-3  # drawn weights alone give boxes of a million pixels
    values |= {"optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "rng": torch.zeros(1, dtype=torch.uint8)}
    checkpoint = Checkpoint(config=config.model_dump_json(), model=model.state_dict(), categories=CATEGORIES, **values)
    save_checkpoint(folder / CHECKPOINT, checkpoint)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.jpg")
    Image.fromarray(pixels[::-1].copy()).save(folder / "b.png")
    return folder


def drawn(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_bad_file_does_not_hide_the_others(
    run: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (photos / "aa.jpg").write_bytes(b"no picture")
    Image.new("1", (20_000, 10_000)).save(photos / "ab.png")
    (photos / "._a.jpg").write_bytes(b"\0\5\x16\7")
    (photos / "notes.txt").write_text("x")
    (photos / "folder.d").mkdir()
    with pytest.raises(DataError) as caught:
        detect_command(run / CHECKPOINT, [photos, tmp_path / "absent.jpg"], tmp_path / "out", 0.4)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 5 could not be used, the others are done:"
    assert [Path(line.split(":")[0].strip()).name for line in lines[1:]] == ["aa.jpg", "ab.png", "absent.jpg"]
    assert drawn(tmp_path / "out") == ["0000-a.jpg", "0003-b.jpg"]
    assert "left out: 1 whose names begin with a dot, 2 that do not end as a picture" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"), [("._a.jpg", "left out: 1 whose"), ("a.txt", "a dot, 1 that do"), (None, "")]
)
def test_what_is_left_out_of_a_folder_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str | None, said: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    if name:
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        files, bad = detect._files([tmp_path])
    assert (files, bad) == ([tmp_path / "b.jpg"], [])
    assert said in caplog.text
    assert bool(said) == ("left out" in caplog.text)


def test_boxes_are_printed_in_pixels_best_first(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect_command(run, [photos / "a.jpg"], tmp_path / "out", 0.0) == 0
    first, *boxes = capsys.readouterr().out.splitlines()
    assert first == f"{photos / 'a.jpg'}: {len(boxes)} detections -> {tmp_path / 'out' / '0000-a.jpg'}"
    assert all(line.isprintable() and " at (" in line for line in boxes), "escape bytes of a category are shown"
    scores = [float(line.split(" at ")[0].split()[-1]) for line in boxes]
    assert scores == sorted(scores, reverse=True)
    assert Image.open(tmp_path / "out" / "0000-a.jpg").size == SIZE
    detect_command(run, [photos / "a.jpg"], tmp_path / "none", 1.0)
    assert ": nothing -> " in capsys.readouterr().out


def test_json_is_cocos_results(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their boxes are those that are printed, and pycocotools' and hotcoco's keys are there."""
    detect_command(run, [photos / "a.jpg"], tmp_path / "out", 0.0)
    printed = capsys.readouterr().out.splitlines()[1:]
    (photos / "a.jpg").rename(photos / "000000000139.jpg")
    detect_command(run, [photos / "000000000139.jpg"], tmp_path / "again", 0.0, as_json=True)
    results = json.loads(capsys.readouterr().out)
    assert len(results) == len(printed) > 0
    names = dict(CATEGORIES)
    for one, line in zip(results, printed, strict=True):
        assert one["image_id"] == 139
        assert one["category"] == names[one["category_id"]]
        left, top, width, height = one["bbox"]
        numbers = line.split(" at ")[1].replace("(", "").replace(")", "").replace(" to ", ", ").split(", ")
        expected = [left, top, left + width, top + height]
        assert np.abs(np.array(numbers, float) - expected).max() <= 0.52
        assert abs(one["score"] - float(line.split(" at ")[0].split()[-1])) <= 0.00501


def test_ids_are_places_where_names_are_no_numbers(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detect_command(run, [photos], tmp_path / "out", 0.0, as_json=True)
    assert {one["image_id"] for one in json.loads(capsys.readouterr().out)} == {0, 1}


def test_a_second_use_does_not_mix_into_the_first(
    run: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        detect_command(run, [photos], tmp_path / "out", 0.3)
    detect_command(run, [photos / "b.png"], tmp_path / "out", 0.3)
    assert drawn(tmp_path / "out") == drawn(tmp_path / "out-2") == ["0000-a.jpg", "0001-b.jpg"]
    assert drawn(tmp_path / "out-3") == ["0000-b.jpg"]
    assert f"holds files already: the pictures go to {tmp_path / 'out-3'}" in caplog.text


def test_names_that_are_long_or_hold_control_characters(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = photos / ("ä" * 125 + ".jpg")
    (photos / "a.jpg").rename(long)
    (photos / "b.png").rename(photos / "b\x1b[2J\n.png")
    assert detect_command(run, [photos], tmp_path / "out", 1.0) == 0
    assert drawn(tmp_path / "out") == ["0000-b\\x1b[2J\\n.jpg", f"0001-{'ä' * 100}.jpg"]
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_a_picture_that_no_jpeg_can_hold_is_named(run: Path, photos: Path, tmp_path: Path) -> None:
    Image.new("L", (70_000, 4)).save(photos / "c.png")
    with pytest.raises(
        DataError, match=r"1 of 3 could not be used, the others are done:\n.*c\.png: cannot be written as a JPEG file"
    ):
        detect_command(run, [photos], tmp_path / "out", 0.3)
    assert drawn(tmp_path / "out") == ["0000-a.jpg", "0001-b.jpg"]


def test_a_folder_without_pictures_is_bad_data(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image .* in .*empty: name files, or folders of them"):
        detect_command(run, [tmp_path / "empty"], tmp_path / "out", 0.3)
    assert not (tmp_path / "out").exists()


def test_a_score_that_is_none(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--score 7"):
        detect_command(run, [photos], tmp_path / "out", 7)


def test_a_vendor_and_its_device(run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detect_command(run, [photos], tmp_path / "out", 0.3, name="cpu") == 0
    assert detect_command(run, [photos], tmp_path / "other", 0.3, name="nvidia", device="cpu") == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match=r"no device of type cuda here: give --device cpu"):
        detect_command(run, [photos], tmp_path / "third", 0.3, name="nvidia")
    with pytest.raises(MachineError, match=r"no device of type fridge here"):
        detect_command(run, [photos], tmp_path / "third", 0.3, device="fridge")
    with pytest.raises(ConfigError, match="nvidi"):
        detect_command(run, [photos], tmp_path / "third", 0.3, name="nvidi")
    assert not (tmp_path / "third").exists()
