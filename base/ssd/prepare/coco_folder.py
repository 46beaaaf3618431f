"""Check a COCO folder before a run reads it: annotations that parse, and every image they list, there and whole.

Looking at both ends of 123,287 files takes seconds; decoding them all takes minutes, and is asked for by `decode`. The
folder is only read.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ssd.data.decode import decode
from ssd.data.index import Index, check_categories
from ssd.data.index_cache import load_index
from ssd.errors import DataError

__all__ = ["SPLITS", "FolderReport", "SplitReport", "annotation_file", "check_folder"]

SPLITS = ("train2017", "val2017")
NAMED = 5


def annotation_file(folder: Path, split: str) -> Path:
    """Where COCO keeps the boxes of a split."""
    return folder / "annotations" / f"instances_{split}.json"


@dataclass(frozen=True)
class SplitReport:
    """images, annotations: listed; with_boxes: images with a usable box; missing, damaged: file names of bad images."""

    split: str
    images: int
    with_boxes: int
    annotations: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class FolderReport:
    """What was found in a COCO folder."""

    folder: Path
    categories: int
    splits: tuple[SplitReport, ...]

    @property
    def ok(self) -> bool:
        """No image is missing or damaged."""
        return not any(split.missing or split.damaged for split in self.splits)

    def lines(self) -> list[str]:
        """The report for people, a line a fact."""
        lines = [f"{self.folder}: {self.categories} categories"]
        for split in self.splits:
            counts = f"{split.images:,} images, {split.with_boxes:,} with a box, {split.annotations:,} annotations"
            lines.append(f"{split.split}: {counts}")
            for what, names in (
                ("missing", split.missing),
                ("truncated, not a JPEG, or of another size", split.damaged),
            ):
                if names:
                    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
                    lines.append(f"{split.split}: {len(names):,} {what}: {', '.join(names[:NAMED])}{more}")
        return lines

    def require(self) -> None:
        """DataError naming the bad images unless `ok`."""
        if not self.ok:
            raise DataError("; ".join(self.lines()) + "; restore these files, or let prepare fetch the set anew")


def check_folder(folder: Path, cache_dir: Path, *, decode_all: bool = False, num_workers: int = 8) -> FolderReport:
    """Parse (or take from `cache_dir`) the annotations of both splits and look at every image they list.

    Without `decode_all` an image passes when it begins and ends as a JPEG does; only one that does not is decoded, as
    some writers append bytes. DataError: annotations that cannot be used, or categories that differ.
    """
    train, val = (load_index(annotation_file(folder, split), cache_dir) for split in SPLITS)
    categories = len(train.category_ids)
    check_categories(train, val, num_classes=categories + 1)
    reports = []
    for split, index in zip(SPLITS, (train, val), strict=True):
        missing, damaged = _bad_images(folder / split, index, decode_all, num_workers)
        reports.append(
            SplitReport(split, len(index), len(index.with_boxes()), len(index.labels), tuple(missing), tuple(damaged))
        )
    return FolderReport(folder, categories, tuple(reports))


def _bad_images(folder: Path, index: Index, decode_all: bool, num_workers: int) -> tuple[list[str], list[str]]:
    """Names of the images that are missing and of those that are not whole, in the index's order."""
    names = index.file_names.tolist()

    def look(name: str, size: tuple[int, int]) -> str:
        path = folder / name
        if not os.path.isfile(path):
            return "missing"
        whole = (not decode_all and _looks_whole(path)) or _decodes(path, size)
        return "whole" if whole else "damaged"

    with ThreadPoolExecutor(num_workers) as pool:
        found = list(pool.map(look, names, map(tuple, index.sizes.tolist())))
    missing = [name for name, state in zip(names, found, strict=True) if state == "missing"]
    damaged = [name for name, state in zip(names, found, strict=True) if state == "damaged"]
    return missing, damaged


def _looks_whole(path: Path) -> bool:
    """Whether a file starts and ends with a JPEG's markers."""
    with path.open("rb") as file:
        start = file.read(3)
        file.seek(-min(2, file.seek(0, 2)), 2)
        end = file.read(2)
    return start == b"\xff\xd8\xff" and end == b"\xff\xd9"


def _decodes(path: Path, size: tuple[int, int]) -> bool:
    """Whether a file decodes to the width and height its annotations give."""
    try:
        height, width = decode(path, 0).shape[1:]
    except DataError:
        return False
    return (width, height) == size
