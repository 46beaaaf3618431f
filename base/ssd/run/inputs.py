"""What a run is trained and evaluated on, as hashes: a run that is resumed on other files would not be the same run.

A checkpoint keeps them. The lists of images hold names and sizes in bytes, so that a missing or replaced file is
noticed without reading 20 GB.
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
"""Files are asked for their size by so many threads: on a network's file system each answer takes a while."""


@dataclass(frozen=True)
class Input:
    """name: what a checkpoint calls it. path: where it is now. sha256: of the file, or of a folder's list of images."""

    name: str
    path: Path
    sha256: str


def inputs_of(config: Config, loader: TrainLoader, source: EvalSource) -> list[Input]:
    """The files that a run reads; none for a synthetic set, which its keys describe. DataError for a missing one."""
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
    """DataError where an input is not what the checkpoint's run was trained on: the path, and both hashes."""
    for one in inputs:
        before = saved.get(one.name)
        if one.sha256 != before:
            raise DataError(
                f"--resume continues the same run, but {one.path} ({one.name}) has the sha256 {one.sha256}, and was "
                f"{before or 'not used'} before: give the files that the run began with, or start a new run"
            )


def _listing(folder: Path, names: Sequence[str]) -> str:
    """SHA-256 over the names and sizes of images; the size of a missing one is -1."""
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
        except (OSError, ValueError):  # what cannot be asked cannot be trained on: decoding it says how
            size = -1
        lines.append(f"{name}\0{size}\n")
    return "".join(lines).encode("utf-8", "surrogatepass")
