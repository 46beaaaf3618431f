"""What a checkpoint is good for: a score on a COCO folder (`evaluate`), boxes on a user's images (`detect`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table
from torch import nn

from ssd.boxes import default_boxes
from ssd.compute.ranks import Ranks
from ssd.config import Config, Resolved
from ssd.counts import IMAGE_SIZE
from ssd.data import EvalBatch
from ssd.data.decode import resize
from ssd.errors import ConfigError, DataError
from ssd.model import build_model
from ssd.ops import REFERENCE
from ssd.report.picture import detected, draw_boxes
from ssd.run.checkpoint import Checkpoint, load_checkpoint
from ssd.run.evaluation import as_record, detect_all, evaluate, input_channels
from ssd.run.sources import open_eval_source
from ssd.vendor import load_vendor, select_ops

__all__ = ["detect_command", "evaluate_command"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def evaluate_command(resolved: Resolved, checkpoint: Path) -> int:
    """Print the twelve statistics of a checkpoint on the folder in `data_dir`; exit code 0 whatever the score.

    The checkpoint knows its config; keys given as flags or variables win over it. A folder named by flag is read even
    where the run itself read none, being synthetic.
    """
    saved = load_checkpoint(checkpoint)
    named = {key for key, origin in resolved.provenance.items() if origin.startswith(("command line", "environment"))}
    given = {key: getattr(resolved.config, key) for key in named}
    if resolved.provenance["data_dir"].startswith("command line"):
        given.setdefault("data_backend", "threads")
    config = _saved_config(saved, given)
    vendor = load_vendor(config.name)
    device = vendor.set_up(config, 0)
    model = vendor.convert_model(_restore(saved, config), config, device)
    ops, origins = select_ops(vendor, config)
    source = open_eval_source(config, Ranks(), device)
    if source.categories != saved.categories:
        raise DataError(f"{source.index.source}: its categories are not those that {checkpoint} was trained on")
    defaults = default_boxes().to(device)
    rows = detect_all(model, source.loader, ops, defaults, device, config)
    statistics, _ = evaluate(source, rows, Ranks(), config.coco_metric)
    table = Table(title=f"{checkpoint}, {len(source.rows)} images of {source.index.source}", title_justify="left")
    table.add_column("statistic")
    table.add_column("value", justify="right")
    for name, value in as_record(statistics).items():
        table.add_row(name, "n/a" if value is None else f"{value:.5f}")
    console = Console(file=sys.stdout)
    for origin in origins:
        console.print(origin)
    console.print(table)
    return 0


def detect_command(checkpoint: Path, images: Sequence[Path], output: Path, score: float) -> int:
    """Draw a checkpoint's detections of at least `score` on images, or folders of them, into `output`, on the CPU."""
    if not 0 <= score <= 1:
        raise ConfigError(f"--score {score:g}: takes number, at least 0, at most 1.")
    saved = load_checkpoint(checkpoint)
    config = _saved_config(saved, {"device": "cpu"})
    model = _restore(saved, config)
    names = {label: name for label, (_, name) in enumerate(saved.categories, 1)}
    output.mkdir(parents=True, exist_ok=True)
    console = Console(file=sys.stdout)
    for number, path in enumerate(_files(images)):
        batch, picture = _read(path, number)
        rows = detect_all(model, [batch], REFERENCE, default_boxes(), torch.device("cpu"), config)
        boxes = detected(rows, names, score)
        target = output / f"{number:04d}-{path.stem}.jpg"  # numbered: images of two folders may be called alike
        draw_boxes(picture, boxes).save(target, quality=92)
        console.print(
            f"{path}: {', '.join(box.text for box in reversed(boxes)) or 'nothing'} -> {target}", soft_wrap=True
        )
    return 0


def _saved_config(saved: Checkpoint, given: dict[str, Any]) -> Config:
    # No step is taken here, recorded or not, and on a CPU the key would be refused.
    return saved.run_config(**{"cuda_graph": False, **given})


def _restore(saved: Checkpoint, config: Config) -> nn.Module:
    model, _ = build_model(
        seed=0, num_classes=config.num_classes, width=config.width, in_channels=input_channels(config)
    )
    try:
        model.load_state_dict(saved.model)
    except RuntimeError as error:
        raise ConfigError(
            f"the checkpoint's weights do not fit width {config.width:g} and num_classes {config.num_classes}: "
            "leave out the flags that change the model"
        ) from error
    return model


def _files(images: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in images:
        if path.is_dir():
            files += sorted(one for one in path.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES)
        else:
            files.append(path)
    if not files:
        kinds = " ".join(IMAGE_SUFFIXES)
        raise DataError(f"no image ({kinds}) in {', '.join(map(str, images))}: name files, or folders of them")
    return files


def _read(path: Path, number: int) -> tuple[EvalBatch, Image.Image]:
    """One image as a batch of one, and as it is, turned as its camera was. DataError names what cannot be read."""
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except OSError as error:
        raise DataError(f"{path}: not an image that can be read ({error})") from error
    pixels = torch.empty(1, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    resize(np.array(picture), pixels[0])
    return EvalBatch(pixels, (number,), torch.tensor([picture.size])), picture
