"""The images and boxes of one annotation file as flat arrays.

The code refers to an image by its row, which is its position in the annotation file, from 0. It refers to a category by
its label. The ids of the file are used only where they are written to a file or shown.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssd.data.texts import Ids, Texts
from ssd.errors import ConfigError, DataError
from ssd.text import counted

__all__ = [
    "LARGEST_SIDE",
    "Index",
    "check_categories",
    "clipped_words",
    "ground_truth",
    "leaves_folder",
    "require_scorable",
    "require_sound",
]

LARGEST_SIDE = 65_535
"""The most pixels that a side of a JPEG image can have."""
LARGEST_AREA = 1e10
"""COCO's metric ignores a box with a larger area, in square pixels."""


@dataclass(frozen=True)
class Index:
    """Images and boxes of one annotation file: I images, A annotations grouped by image, C categories.

    image_ids: the ids of the file, in the file's order.
    id_order (I,) int64: the position of each image's id among all ids in ascending order, numbers before text. The
        metric gets this number as the image's id, because the metric breaks ties by id.
    file_names: I names. sizes (I, 2) int64: width and height in pixels.
    offsets (I + 1,) int64: the annotations of image i are offsets[i]:offsets[i + 1], in the file's order.
    boxes (A, 4) float32: ltrb as fractions of the image, clipped to 0..1.
    labels (A,) int64, 1..C: the position of the category among the ids in ascending order, plus 1.
    usable (A,) bool: whether the box has a size after clipping. Boxes of crowds are usable, because the benchmark
        trains on them.
    bboxes (A, 4) float64 (left, top, width, height in pixels), areas (A,) float64 in square pixels, iscrowd (A,) bool:
        the values of the file, unchanged, for the metric.
    category_ids, category_names: those of the labels 1, 2, ... C. source: the path of the file. sha256: its hash.
    """

    image_ids: Ids
    id_order: NDArray[np.int64]
    file_names: Texts
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    usable: NDArray[np.bool_]
    bboxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    category_ids: Ids
    category_names: Texts
    source: str
    sha256: str

    def __len__(self) -> int:
        return len(self.image_ids)

    def with_boxes(self) -> NDArray[np.int64]:
        """The rows (n,) int64 of the images that have a usable box, ascending.

        A run trains on these images. By default it also evaluates only these.
        """
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return np.unique(owner[self.usable])

    def image_boxes(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Copies of the usable boxes (n, 4) float32 ltrb and of their labels (n,) int64, for the image in `row`."""
        span = slice(self.offsets[row], self.offsets[row + 1])
        keep = self.usable[span]
        return self.boxes[span][keep], self.labels[span][keep]

    def annotations_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions (n,) int64 of the annotations of the images in `rows` (m,) int64, image by image."""
        spans = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        return np.concatenate(spans) if spans else np.zeros(0, np.int64)

    def clipped(self) -> NDArray[np.bool_]:
        """Whether each box reaches more than one pixel out of its image, (A,) bool.

        Some boxes of COCO itself reach out by a part of a pixel.
        """
        sizes = np.repeat(self.sizes, np.diff(self.offsets), axis=0)
        left_top, right_bottom = self.bboxes[:, :2], self.bboxes[:, :2] + self.bboxes[:, 2:]
        return np.any((left_top < -1) | (right_bottom > sizes + 1), axis=1)


def clipped_words(clipped: int, annotations: int) -> str:
    """A sentence for a user: how many boxes reach out of their images."""
    return f"{clipped:,} of {counted(annotations, 'box', 'boxes')} reach out of their images and are clipped to them"


def leaves_folder(name: str) -> bool:
    """Whether a file name is empty, has a NUL, or leads out of the folder it belongs to. Links are not followed."""
    if not name or "\0" in name or name[0] == "/":
        return True
    if "/" not in name:
        return name in (".", "..")
    plain = os.path.normpath(name)
    return plain in (".", "..") or plain.startswith("../")


def require_sound(index: Index) -> None:
    """Raise ValueError unless the arrays are as `Index` describes them. Call it for an index that comes from a file."""
    images, annotations, categories = len(index.image_ids), len(index.labels), len(index.category_ids)
    for texts in (index.image_ids, index.file_names, index.category_ids, index.category_names):
        texts.require_sound()
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "id_order": (np.int64, (images,)),
        "sizes": (np.int64, (images, 2)),
        "offsets": (np.int64, (images + 1,)),
        "boxes": (np.float32, (annotations, 4)),
        "labels": (np.int64, (annotations,)),
        "usable": (np.bool_, (annotations,)),
        "bboxes": (np.float64, (annotations, 4)),
        "areas": (np.float64, (annotations,)),
        "iscrowd": (np.bool_, (annotations,)),
    }
    for name, (dtype, shape) in shapes.items():
        array = getattr(index, name)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}")
    boxes = index.boxes
    facts = {
        "an image or a category": images > 0 and categories > 0,
        "file_names": len(index.file_names) == images and not any(map(leaves_folder, index.file_names)),
        "category_names": len(index.category_names) == categories,
        "image_ids": len(set(index.image_ids)) == images and len(set(index.category_ids)) == categories,
        "id_order": bool((np.sort(index.id_order) == np.arange(images)).all()),
        "sizes": bool(((index.sizes > 0) & (index.sizes <= LARGEST_SIDE)).all()),
        "offsets": index.offsets[0] == 0
        and index.offsets[-1] == annotations
        and bool((np.diff(index.offsets) >= 0).all()),
        "labels": bool(((index.labels >= 1) & (index.labels <= categories)).all()),
        "boxes": bool(((boxes >= 0) & (boxes <= 1)).all()),
        "usable": bool((index.usable == (boxes[:, 2:] > boxes[:, :2]).all(axis=1)).all()),
        "bboxes": bool(np.isfinite(index.bboxes).all() and np.isfinite(index.areas).all()),
    }
    if wrong := [what for what, holds in facts.items() if not holds]:
        raise ValueError(f"{', '.join(wrong)} cannot come from an annotation file")


def check_categories(train: Index, val: Index, num_classes: int) -> None:
    """Raise DataError unless both files list the same categories.

    Raise ConfigError unless num_classes is the number of categories plus 1.
    """
    ours = dict(zip(train.category_ids, train.category_names, strict=True))
    theirs = dict(zip(val.category_ids, val.category_names, strict=True))
    if ours != theirs:
        differing = next(key for key in [*ours, *theirs] if ours.get(key) != theirs.get(key))
        raise DataError(
            f"{train.source} and {val.source} list different categories ({len(ours)} and {len(theirs)}; "
            f"first difference: id {differing}, {ours.get(differing)!r} and {theirs.get(differing)!r}); "
            "labels are positions in that list, so it must be the same"
        )
    expected = len(train.category_ids) + 1
    if num_classes != expected:
        raise ConfigError(
            f"num_classes = {num_classes}, but {train.source} lists {counted(expected - 1, 'category', 'categories')}: "
            f"set num_classes = {expected} (one more, for the background)"
        )


def require_scorable(index: Index, rows: NDArray[np.int64]) -> None:
    """Raise DataError where the images in `rows` (n,) int64 hold no box that the metric counts.

    COCO's metric would return -1 for them. It does not count crowds, and it does not count a box whose area is outside
    its range.
    """
    if not index.with_boxes().size:
        raise DataError(f"{index.source}: no image has a box with a size; there is nothing to evaluate on")
    places = index.annotations_of(rows)
    counts = ~index.iscrowd[places] & (index.areas[places] >= 0) & (index.areas[places] <= LARGEST_AREA)
    if counts.any():
        return
    also = "" if index.iscrowd[places].all() else f" or an area that is not 0 to {LARGEST_AREA:g}"
    raise DataError(
        f"{index.source}: each of the {len(places):,} annotations of the evaluated images has iscrowd 1{also}, and the "
        "metric counts none of those: nothing can be scored. Set iscrowd to 0 for single objects (some exports of "
        "masks as RLE set it to 1)"
    )


def ground_truth(index: Index, rows: NDArray[np.int64] | None = None) -> dict[str, list[dict[str, Any]]]:
    """The images in `rows` (n,) int64 as a dict in COCO's format (images, annotations, categories), for the metric.

    rows: None means all images. The ids are not those of the file: the id of an image is its `id_order`, and the id of
    a category is its label. Ids of annotations count from 1, because the metric of pycocotools takes an annotation's id
    0 for "no match". Boxes, areas and crowd flags are those of the annotation file, boxes without a size included.
    """
    chosen = np.arange(len(index)) if rows is None else rows
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in chosen:
        width, height = index.sizes[row].tolist()
        image_id = int(index.id_order[row])
        images.append({"id": image_id, "file_name": index.file_names[row], "width": width, "height": height})
        for k in range(index.offsets[row], index.offsets[row + 1]):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(index.labels[k]),
                    "bbox": index.bboxes[k].tolist(),
                    "area": float(index.areas[k]),
                    "iscrowd": int(index.iscrowd[k]),
                }
            )
    categories = [{"id": label, "name": name} for label, name in enumerate(index.category_names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}
