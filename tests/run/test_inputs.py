"""What a run is trained on, as hashes: every change of the data is noticed, and a moved folder is none."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.errors import DataError
from ssd.run.inputs import inputs_of, require_same_inputs
from ssd.run.sources import open_sources

CPU = Abilities(torch.device("cpu"))


def inputs(folder: Path, **keys) -> list:
    values = {"data_dir": folder, "cache_dir": folder.parent / "cache", "num_classes": 4, "pretrained": False, **keys}
    config = Config(**values)
    return inputs_of(config, *open_sources(config, Ranks(), 1, CPU))


def hashes(folder: Path, **keys) -> dict[str, str]:
    return {one.name: one.sha256 for one in inputs(folder, **keys)}


def test_names_and_hashes(coco: Path) -> None:
    found = hashes(coco)
    name = "annotations/instances_train2017.json"
    assert found[name] == hashlib.sha256((coco / name).read_bytes()).hexdigest()
    files = sorted((coco / "val2017").iterdir())
    lines = "".join(f"{path.name}\0{path.stat().st_size}\n" for path in files)
    assert found["images of val2017"] == hashlib.sha256(lines.encode()).hexdigest()
    assert len(found) == 4


def test_a_copy_elsewhere_is_the_same(coco: Path, tmp_path: Path) -> None:
    shutil.copytree(coco, tmp_path / "moved")
    require_same_inputs(inputs(tmp_path / "moved"), hashes(coco))


def test_a_file_that_nobody_reads_changes_nothing(coco: Path) -> None:
    before = hashes(coco)
    (coco / "train2017" / "notes.txt").write_text("mine")
    require_same_inputs(inputs(coco), before)


@pytest.mark.parametrize("change", ["annotations", "replaced image", "missing image", "validation image"])
def test_each_change_is_refused_by_name_with_both_hashes(coco: Path, change: str) -> None:
    before = hashes(coco)
    path = coco / "annotations" / "instances_train2017.json"
    if change == "annotations":
        path.write_text(path.read_text() + " ")
    else:
        path = coco / ("val2017" if change == "validation image" else "train2017")
        image = sorted(path.iterdir())[0]
        image.unlink() if change == "missing image" else image.write_bytes(image.read_bytes() + b"\0")
    after = hashes(coco)
    (name,) = (name for name in before if before[name] != after[name])
    with pytest.raises(DataError, match=f"{path} .{name}. has the sha256 {after[name]}, and was {before[name]}"):
        require_same_inputs(inputs(coco), before)


def test_another_backbone_is_refused(coco: Path, tmp_path: Path) -> None:
    backbone = tmp_path / "resnet34.pth"
    backbone.write_bytes(b"one")
    before = hashes(coco, pretrained=True, backbone_path=backbone)
    assert before["backbone"] == hashlib.sha256(b"one").hexdigest()
    backbone.write_bytes(b"two")
    with pytest.raises(
        DataError, match=f"{backbone} .backbone.*{hashlib.sha256(b'two').hexdigest()}.*{before['backbone']}"
    ):
        require_same_inputs(inputs(coco, pretrained=True, backbone_path=backbone), before)


def test_a_synthetic_set_has_no_files(tmp_path: Path) -> None:
    config = Config(data_backend="synthetic", num_classes=4, synthetic_samples=4, pretrained=False)
    assert inputs_of(config, *open_sources(config, Ranks(), 1, CPU)) == []
