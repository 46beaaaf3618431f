"""A COCO annotation file as flat arrays: parsed once, kept in the cache, loaded in milliseconds by every process.

instances_train2017.json is 450 MB, most of it outlines that nobody here reads. msgspec parses only the fields named
below (1.1 s, against 5 to 10 s and three times the memory for a plain JSON parser); the result is one .npz under
`cache_dir`, named after the sha256 of its source. A zip archive carries a checksum for every array, so a damaged cache
is noticed while it is read, and built again. Nothing is ever written beside the annotation file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ssd.errors import ConfigError, DataError

__all__ = [
    "Index",
    "check_categories",
    "ground_truth",
    "index_of",
    "load_index",
    "parse_annotations",
    "sha256_of",
]

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the cached arrays; raise it when `Index` changes, and old caches are left alone."""


@dataclass(frozen=True)
class Index:
    """Images and boxes of one annotation file, as arrays. I images, A annotations grouped by image, C categories.

    image_ids (I,) int64, in the file's order; file_names (I,) unicode; sizes (I, 2) int64, width and height in pixels.
    offsets (I + 1,) int64: annotations of image i are offsets[i]:offsets[i + 1], in the file's order.
    boxes (A, 4) float32, ltrb as fractions of the image, clipped to 0..1; labels (A,) int64, 1..C: the position of the
        category among the ids in ascending order, plus 1.
    usable (A,) bool: the box has a size after clipping. Boxes of crowds are usable, as the benchmark trains on them.
    annotation_ids (A,) int64, bboxes (A, 4) float64 (left, top, width, height in pixels), areas (A,) float64 and
        iscrowd (A,) bool are the file's own values, for the metric.
    category_ids (C,) int64, ascending; category_names (C,) unicode. source, sha256: the file it was read from.
    """

    image_ids: NDArray[np.int64]
    file_names: NDArray[np.str_]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    usable: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]
    bboxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    category_ids: NDArray[np.int64]
    category_names: NDArray[np.str_]
    source: str
    sha256: str

    def __len__(self) -> int:
        return len(self.image_ids)

    def with_boxes(self) -> NDArray[np.int64]:
        """Rows of the images that have a usable box, ascending: what is trained on, and by default evaluated."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return np.unique(owner[self.usable])

    def image_boxes(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Usable boxes (n, 4) float32 ltrb and labels (n,) int64 of the image in `row`; copies."""
        span = slice(self.offsets[row], self.offsets[row + 1])
        keep = self.usable[span]
        return self.boxes[span][keep], self.labels[span][keep]


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Instances(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file. DataError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check data_dir and its permissions") from error
    return digest.hexdigest()


def parse_annotations(path: Path) -> Index:
    """Read instances_*.json into an `Index`. DataError names the file and the entry that is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check data_dir and its permissions") from error
    try:
        instances = msgspec.json.decode(content, type=_Instances)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not an annotation file in COCO's format: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    del content  # half a gigabyte that the arrays do not need
    return _flatten(instances, str(path), digest)


def index_of(content: dict[str, Any], source: str) -> Index:
    """The index of annotations that are already a dict in COCO's format; `source` names them in messages."""
    digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()
    try:
        return _flatten(msgspec.convert(content, _Instances), source, digest)
    except msgspec.ValidationError as error:
        raise DataError(f"{source}: not annotations in COCO's format: {error}") from error


def _flatten(instances: _Instances, source: str, sha256: str) -> Index:
    """Check an annotation file and lay it out as arrays, annotations sorted by image."""
    images, annotations = instances.images, instances.annotations
    categories = sorted(instances.categories, key=lambda category: category.id)
    if not images or not categories:
        raise DataError(f"{source}: lists {len(images)} images and {len(categories)} categories; both are needed")
    image_ids = np.array([image.id for image in images], np.int64)
    category_ids = np.array([category.id for category in categories], np.int64)
    annotation_ids = np.array([annotation.id for annotation in annotations], np.int64)
    for what, ids in (("image", image_ids), ("category", category_ids), ("annotation", annotation_ids)):
        _refuse_duplicates(source, what, ids)
    sizes = np.array([(image.width, image.height) for image in images], np.int64)
    if (bad := np.flatnonzero((sizes <= 0).any(1))).size:
        raise DataError(f"{source}: image {image_ids[bad[0]]} has width and height {sizes[bad[0]].tolist()}")

    owner = _rows(source, image_ids, annotation_ids, [a.image_id for a in annotations], "image")
    labels = 1 + _rows(source, category_ids, annotation_ids, [a.category_id for a in annotations], "category")
    bboxes = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    areas = np.array([a.area for a in annotations], np.float64)
    if (bad := np.flatnonzero(~np.isfinite(bboxes).all(1) | (bboxes[:, 2:] < 0).any(1) | ~np.isfinite(areas))).size:
        raise DataError(
            f"{source}: annotation {annotation_ids[bad[0]]} has bbox {bboxes[bad[0]].tolist()}, area {areas[bad[0]]}; "
            "a bbox is left, top, width, height in pixels, finite, no negative size"
        )
    order = np.argsort(owner, kind="stable")
    owner, bboxes = owner[order], bboxes[order]
    boxes = _fractions(bboxes, sizes[owner])
    counts = np.bincount(owner, minlength=len(images))
    return Index(
        image_ids=image_ids,
        file_names=np.array([image.file_name for image in images], np.str_),
        sizes=sizes,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=labels[order],
        usable=np.all(boxes[:, 2:] > boxes[:, :2], axis=1),
        annotation_ids=annotation_ids[order],
        bboxes=bboxes,
        areas=areas[order],
        iscrowd=np.array([a.iscrowd for a in annotations], np.int64)[order] != 0,
        category_ids=category_ids,
        category_names=np.array([category.name for category in categories], np.str_),
        source=source,
        sha256=sha256,
    )


def _refuse_duplicates(source: str, what: str, ids: NDArray[np.int64]) -> None:
    """DataError naming the first id that stands twice."""
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        raise DataError(f"{source}: {what} id {unique[counts > 1][0]} stands {counts[counts > 1][0]} times")


def _rows(
    source: str, ids: NDArray[np.int64], annotation_ids: NDArray[np.int64], wanted: list[int], what: str
) -> NDArray[np.int64]:
    """Position in `ids` of the image or category each annotation names; DataError for one that is not listed."""
    targets = np.array(wanted, np.int64)
    order = np.argsort(ids)
    found = order[np.minimum(np.searchsorted(ids, targets, sorter=order), len(ids) - 1)]
    if (bad := np.flatnonzero(ids[found] != targets)).size:
        raise DataError(
            f"{source}: annotation {annotation_ids[bad[0]]} is of {what} {targets[bad[0]]}, which is not listed"
        )
    return found.astype(np.int64)


def _fractions(bboxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Pixel left, top, width, height (A, 4) to ltrb fractions of the image (A, 2), clipped: some of COCO's stick out by
    part of a pixel."""
    corners = np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], axis=1)
    return np.clip(corners / np.tile(sizes, 2), 0, 1).astype(np.float32)


def load_index(path: Path, cache_dir: Path) -> Index:
    """The index of an annotation file: from the cache where a sound one is there, else parsed and cached.

    A cache directory that cannot be written costs the time of parsing, not the run: it is logged.
    """
    digest = sha256_of(path)
    cached = _cache_file(cache_dir, digest)
    if cached.is_file():
        try:
            return _read(cached, str(path), digest)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s is damaged (%s) and is built again from %s", cached, error, path)
    index = parse_annotations(path)
    try:
        _save(index, _cache_file(cache_dir, index.sha256))
    except OSError as error:
        log.warning("the index of %s is not cached in %s: %s", path, cache_dir, error)
    return index


def _cache_file(cache_dir: Path, digest: str) -> Path:
    return cache_dir.expanduser() / f"annotations-v{FORMAT}-{digest[:32]}.npz"


def _array_fields() -> list[str]:
    return [field.name for field in fields(Index) if field.name != "source"]


def _save(index: Index, target: Path) -> None:
    """Write beside the target and rename: several processes may do so at once, and none ever sees half a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            arrays: dict[str, Any] = {field: getattr(index, field) for field in _array_fields()}
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(cached: Path, source: str, digest: str) -> Index:
    """Load a cache file. An exception of zipfile or numpy, or ValueError for another digest, says it is damaged."""
    with np.load(cached, allow_pickle=False) as arrays:
        values: dict[str, Any] = {field: arrays[field] for field in _array_fields()}
    values["sha256"] = str(values["sha256"])
    if values["sha256"] != digest:
        raise ValueError(f"it was made from another file, {values['sha256'][:8]}...")
    return Index(source=source, **values)


def check_categories(train: Index, val: Index, num_classes: int) -> None:
    """Both files must list the same categories (DataError), and num_classes must be their number + 1 (ConfigError)."""
    if not (
        np.array_equal(train.category_ids, val.category_ids)
        and np.array_equal(train.category_names, val.category_names)
    ):
        ours = dict(zip(train.category_ids.tolist(), train.category_names.tolist(), strict=True))
        theirs = dict(zip(val.category_ids.tolist(), val.category_names.tolist(), strict=True))
        differing = sorted({key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)})
        raise DataError(
            f"{train.source} and {val.source} list different categories ({len(ours)} and {len(theirs)}; "
            f"first difference: id {differing[0]}, {ours.get(differing[0])!r} and {theirs.get(differing[0])!r}); "
            "labels are positions in that list, so it must be the same"
        )
    expected = len(train.category_ids) + 1
    if num_classes != expected:
        raise ConfigError(
            f"num_classes = {num_classes}, but {train.source} lists {expected - 1} categories: "
            f"set num_classes = {expected} (one more, for the background)"
        )


def ground_truth(index: Index, rows: NDArray[np.int64] | None = None) -> dict[str, list[dict[str, Any]]]:
    """COCO-format dict (images, annotations, categories) of the images in `rows` (default: all), for the metric.

    Boxes, areas and crowd flags are the annotation file's own, including boxes without a size.
    """
    chosen = np.arange(len(index)) if rows is None else rows
    images, annotations = [], []
    for row in chosen:
        image_id = int(index.image_ids[row])
        width, height = index.sizes[row].tolist()
        images.append({"id": image_id, "file_name": str(index.file_names[row]), "width": width, "height": height})
        for k in range(index.offsets[row], index.offsets[row + 1]):
            annotations.append(
                {
                    "id": int(index.annotation_ids[k]),
                    "image_id": image_id,
                    "category_id": int(index.category_ids[index.labels[k] - 1]),
                    "bbox": index.bboxes[k].tolist(),
                    "area": float(index.areas[k]),
                    "iscrowd": int(index.iscrowd[k]),
                }
            )
    names = zip(index.category_ids.tolist(), index.category_names.tolist(), strict=True)
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in names],
    }
