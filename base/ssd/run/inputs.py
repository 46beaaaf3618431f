"""Hashes of the files that a run is trained and evaluated on. A run that is resumed must have the same files.

A checkpoint keeps these hashes. For images, the hash is that of a list of names and sizes in bytes. So a missing or
replaced file is noticed without reading 20 GB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ssd.config import Config
from ssd.data import TrainLoader
from ssd.data.annotations import sha256_of
from ssd.errors import DataError
from ssd.run.sources import TRAIN, VAL, EvalSource

__all__ = ["Input", "inputs_of", "require_same_inputs"]

THREADS, AT_ONCE = 16, 1000
"""So many threads ask for the sizes of files, each for so many files at once. A network file system answers slowly."""


@dataclass(frozen=True)
class Input:
    """An input of a run. name: in the checkpoint. path: where it is now. sha256: that of the file or list of images."""

    name: str
    path: Path
    sha256: str


def inputs_of(config: Config, loader: TrainLoader, source: EvalSource) -> list[Input]:
    """The inputs of a run. A synthetic set has none, since keys describe it. Raises DataError for a missing file."""
    inputs = []
    if config.data_dir is not None and config.data_backend != "synthetic":
        rows = {TRAIN: loader.index.with_boxes(), VAL: source.rows}
        for split, index in ((TRAIN, loader.index), (VAL, source.index)):
            name, folder = f"annotations/instances_{split}.json", config.data_dir / split
            inputs.append(Input(name, config.data_dir / name, index.sha256))
            inputs.append(Input(f"images of {split}", folder, _listing(folder, index.file_names[rows[split]].tolist())))
    if config.pretrained and config.backbone_path is not None:
        inputs.append(Input("backbone", config.backbone_path, sha256_of(config.backbone_path)))
    return inputs


def require_same_inputs(inputs: Iterable[Input], saved: Mapping[str, str]) -> None:
    """Raise DataError, with the path and both hashes, where an input differs from that of the checkpoint's run."""
    for one in inputs:
        before = saved.get(one.name)
        if one.sha256 != before:
            raise DataError(
                f"--resume continues the same run, but {one.path} ({one.name}) has the sha256 {one.sha256}, and was "
                f"{before or 'not used'} before: give the files that the run began with, or start a new run"
            )


def _listing(folder: Path, names: Sequence[str]) -> str:
    """The SHA-256 of the names and sizes of images. A missing image counts with the size -1."""
    blocks = iter(names)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="ssd-list") as pool:
        for text in pool.map(lambda block: _sizes(folder, block), iter(lambda: list(islice(blocks, AT_ONCE)), [])):
            digest.update(text)
    return digest.hexdigest()


def _sizes(folder: Path, names: Iterable[str]) -> bytes:
    lines = []
    for name in names:
        try:
            size = (folder / name).stat().st_size
        except (OSError, ValueError):  # such a file cannot be trained on either, and decoding it will say why
            size = -1
        lines.append(f"{name}\0{size}\n")
    return "".join(lines).encode("utf-8", "surrogatepass")
