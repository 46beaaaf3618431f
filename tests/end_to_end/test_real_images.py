"""A run of the whole network on real photos, as a user starts it; minutes on a CPU, so it stands alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess]
Records = Callable[[Path, str], list[dict]]


def link_first(coco: Path, folder: Path, split: str, count: int) -> None:
    """Make a COCO folder of the first images of another: links to them, and their annotations."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    name = f"instances_{split}.json"
    content = json.loads((coco / "annotations" / name).read_text())
    images = content["images"][:count]
    kept = {image["id"] for image in images}
    for image in images:
        (folder / split / image["file_name"]).symlink_to((coco / split / image["file_name"]).resolve())
    annotations = [one for one in content["annotations"] if one["image_id"] in kept]
    (folder / "annotations" / name).write_text(json.dumps({**content, "images": images, "annotations": annotations}))


def test_the_tiny_config_trains_the_whole_network_on_real_images(
    command: Command, tiny_coco: Path, tmp_path: Path, records: Records
) -> None:
    """Full width, 81 classes, real JPEGs; one epoch of the config's three, on half of the images, for time's sake."""
    folder, data = tmp_path / "run", tmp_path / "coco"
    for split, count in (("train2017", 24), ("val2017", 16)):
        link_first(tiny_coco, data, split, count)
    flags = ["--name", "cpu", "--config", "tiny", "--data_dir", str(data), "--cache_dir", str(tmp_path / "cache")]
    flags += ["--epochs", "1", "--eval_epochs", "1", "--log_freq", "1", "--seed", "1", "--output", str(folder)]
    ended = command("run_training.sh", *flags, timeout=900)
    assert ended.returncode == 4, ended.stderr
    losses = [record["loss"] for record in records(folder, "train")]
    assert len(losses) == 6
    assert np.mean(losses[3:]) < np.mean(losses[:3])
    assert records(folder, "evaluation")[0]["epoch"] == 1
    checker = [sys.executable, "-m", "mlperf_logging.compliance_checker", "--usage", "training", "--ruleset", "1.1.0"]
    said = subprocess.run(
        [*checker, "--log_output", str(tmp_path / "checker.log"), str(folder / "result_0.txt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SUCCESS" in said.stdout + said.stderr, said.stderr
