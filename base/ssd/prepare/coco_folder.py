"""Checks a COCO folder before a run reads it: the annotations parse, and every listed image is there and complete.

Reading the headers and ends of 123,287 files takes from seconds to a minute. Decoding all of them takes minutes, and is
done only with `decode_all`. Nothing is written to the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssd.data.folder import SPLITS, annotation_file
from ssd.data.image_files import MISSING, image_faults
from ssd.data.index import Index, check_categories, clipped_words
from ssd.data.index_cache import load_index
from ssd.errors import DataError
from ssd.text import counted, shortened, visible

__all__ = ["FolderReport", "SplitReport", "check_folder", "check_split"]

NAMED = 5
"""The most bad images that a report names. The others are only counted."""


@dataclass(frozen=True)
class SplitReport:
    """What was found in one split.

    images, annotations: how many are listed. with_boxes: images with a usable box. clipped: boxes that reach out of
    their image. missing, damaged: file names of bad images. reasons: what is wrong with each damaged one.
    """

    split: str
    images: int
    with_boxes: int
    annotations: int
    clipped: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    reasons: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for a user, one fact a line."""
        counts = f"{counted(self.images, 'image')}, {self.with_boxes:,} with a box"
        counts += f", {counted(self.annotations, 'annotation')}"
        lines = [f"{self.split}: {counts}"]
        if self.clipped:
            lines.append(f"{self.split}: {clipped_words(self.clipped, self.annotations)}")
        return lines + self.faults()

    def faults(self) -> list[str]:
        """What is wrong with the images: a line for the missing ones, a line for the damaged ones."""
        explained = [f"{name} ({reason})" for name, reason in zip(self.damaged, self.reasons, strict=True)]
        kinds = (("missing", self.missing), ("truncated, not a JPEG, or of another size", explained))
        lines = []
        for what, names in kinds:
            if names:
                more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
                shown = ", ".join(shortened(visible(name), 400) for name in names[:NAMED])
                lines.append(f"{self.split}: {len(names):,} {what}: {shown}{more}")
        return lines


@dataclass(frozen=True)
class FolderReport:
    """What was found in a COCO folder."""

    folder: Path
    categories: int
    splits: tuple[SplitReport, ...]

    @property
    def ok(self) -> bool:
        """Whether no image is missing or damaged."""
        return not any(split.missing or split.damaged for split in self.splits)

    def lines(self) -> list[str]:
        """The report for a user, one fact a line."""
        lines = [f"{self.folder}: {counted(self.categories, 'category', 'categories')}"]
        for split in self.splits:
            lines += split.lines()
        return lines

    def require(self) -> None:
        """Raise DataError, which names the bad images, unless `ok`."""
        if not self.ok:
            raise DataError("; ".join(self.lines()) + "; restore these files, or let prepare fetch the set anew")


def check_folder(folder: Path, cache_dir: Path, *, decode_all: bool = False, num_workers: int = 8) -> FolderReport:
    """Read the annotations of both splits, from `cache_dir` if they are there, and check every image that they list.

    decode_all: decode every image. Otherwise only the header and both ends of a file are read. num_workers: threads.
    Raises DataError for annotations that cannot be used, and for splits with different categories.
    """
    train, val = (load_index(annotation_file(folder, split), cache_dir) for split in SPLITS)
    categories = len(train.category_ids)
    check_categories(train, val, num_classes=categories + 1)
    reports = tuple(
        check_split(folder, split, index, decode_all=decode_all, num_workers=num_workers)
        for split, index in zip(SPLITS, (train, val), strict=True)
    )
    return FolderReport(folder, categories, reports)


def check_split(
    folder: Path, split: str, index: Index, *, decode_all: bool = False, num_workers: int = 8
) -> SplitReport:
    """Check every image of a split (see `ssd.data.image_files.image_fault`)."""
    names = index.file_names.tolist()
    faults = image_faults(folder / split, names, index.sizes.tolist(), num_workers, decode_all)
    bad = [(name, fault) for name, fault in zip(names, faults, strict=True) if fault not in ("", MISSING)]
    return SplitReport(
        split=split,
        images=len(index),
        with_boxes=len(index.with_boxes()),
        annotations=len(index.labels),
        clipped=int(index.clipped().sum()),
        missing=tuple(name for name, fault in zip(names, faults, strict=True) if fault == MISSING),
        damaged=tuple(name for name, _ in bad),
        reasons=tuple(fault for _, fault in bad),
    )
