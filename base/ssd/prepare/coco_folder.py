"""Checks a COCO folder before a run reads it: the annotations parse, and every listed image is there and complete.

Reading the headers and ends of 123,287 files takes from seconds to a minute. Decoding all of them takes minutes, and is
done only with `decode_all`. Nothing is written to the folder.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ssd.data.annotations import sha256_of
from ssd.data.folder import SPLITS, annotation_file
from ssd.data.image_files import MISSING, image_faults
from ssd.data.index import Index, check_categories, clipped_words
from ssd.data.index_cache import load_index
from ssd.errors import DataError
from ssd.text import counted, shortened, visible

__all__ = ["FolderReport", "SplitReport", "check_folder", "check_split", "shared_images", "shared_words"]

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
    note: str = ""
    """What is worth knowing of both splits together, and no fault."""

    @property
    def ok(self) -> bool:
        """Whether no image is missing or damaged."""
        return not any(split.missing or split.damaged for split in self.splits)

    def lines(self) -> list[str]:
        """The report for a user, one fact a line."""
        lines = [f"{self.folder}: {counted(self.categories, 'category', 'categories')}"]
        for split in self.splits:
            lines += split.lines()
        return lines + ([self.note] if self.note else [])

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
    note = shared_words(shared_images(folder, train, val, num_workers))
    return FolderReport(folder, categories, reports, note)


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


def shared_images(folder: Path, train: Index, val: Index, num_workers: int = 8) -> list[tuple[str, str]]:
    """Images that both splits hold under whatever name: the name in val2017, and the name in train2017.

    Two files are one image where their bytes are the same. Only files of equal width, height and length are read.
    Missing files are left out.
    """
    ours, theirs = (
        _by_size(folder / split, index, num_workers) for split, index in zip(SPLITS, (train, val), strict=True)
    )
    found = []
    for size in sorted(ours.keys() & theirs.keys()):
        trained = {sha256_of(folder / SPLITS[0] / name): name for name in ours[size]}
        digests = ((name, sha256_of(folder / SPLITS[1] / name)) for name in theirs[size])
        found += [(name, trained[digest]) for name, digest in digests if digest in trained]
    return found


def shared_words(shared: list[tuple[str, str]]) -> str:
    """What `shared_images` found, for people; "" where it found none."""
    if not shared:
        return ""
    name, trained = (shortened(visible(one)) for one in shared[0])
    return (
        f"{SPLITS[1]} shares {counted(len(shared), 'image')} with {SPLITS[0]}, {name} ({trained} there) the first: a "
        "score on images that were trained on says little"
    )


def _by_size(folder: Path, index: Index, num_workers: int) -> dict[tuple[int, int, int], list[str]]:
    """File names by width, height and bytes."""

    def length(name: str) -> int:
        try:
            return (folder / name).stat().st_size
        except (OSError, ValueError):
            return -1

    found = defaultdict(list)
    names = index.file_names.tolist()
    with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="ssd-look") as pool:
        for name, (width, height), size in zip(names, index.sizes.tolist(), pool.map(length, names), strict=True):
            if size > 0:
                found[width, height, size].append(name)
    return dict(found)
