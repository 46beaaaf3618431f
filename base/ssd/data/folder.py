"""Where the files of a COCO folder lie, and a hint about a folder that has the layout of another format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssd.data.index import Index

__all__ = ["SPLITS", "TRAIN", "VAL", "annotation_file", "located", "other_layout"]

TRAIN, VAL = SPLITS = ("train2017", "val2017")


def annotation_file(folder: Path, split: str) -> Path:
    """The path of a split's annotation file, as COCO names it."""
    return folder / "annotations" / f"instances_{split}.json"


class _ImageId:
    """The id of the image in `row` as text, which is looked up where a message shows it."""

    __slots__ = ("index", "row")

    def __init__(self, index: Index, row: int) -> None:
        self.index, self.row = index, row

    def __str__(self) -> str:
        return str(self.index.image_ids[self.row])


def located(index: Index, row: int, folder: Path) -> tuple[str, object, tuple[int, int]]:
    """The path of the file of the image in `row`, the image's id as text, and its width and height in pixels."""
    width, height = index.sizes[row].tolist()
    return os.path.join(folder, index.file_names[row]), _ImageId(index, row), (width, height)


def other_layout(folder: Path) -> str:
    """A hint for a user whose folder has the layout of another format. "" where no such layout is recognised."""
    wanted = f"here {annotation_file(Path(), SPLITS[0])} and {annotation_file(Path(), SPLITS[1])} are read"
    try:
        names = {entry.name for entry in os.scandir(folder)}
        exports = sorted(folder.glob("*/_annotations.coco.json"))
    except (OSError, ValueError):
        return ""
    if "labels" in names or names & {"data.yaml", "data.yml", "dataset.yaml"}:
        return f"The folder has YOLO's layout (labels/ with a text file an image): convert it to COCO's; {wanted}"
    if exports:
        return f"The folder holds {exports[0].relative_to(folder)}: a COCO file in another place; {wanted}"
    if {"Annotations", "JPEGImages"} <= names:
        return f"The folder has Pascal VOC's layout (Annotations/ of XML files): convert it to COCO's; {wanted}"
    return ""
