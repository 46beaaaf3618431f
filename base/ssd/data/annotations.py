"""Parses COCO's annotation files.

instances_train2017.json has 450 MB, and most of it are outlines that are not needed here. msgspec parses only the
fields that are named below. It takes 1.1 s. A plain JSON parser takes 5 to 10 s and three times the memory. Variants
that other tools write are accepted where they have one meaning only: ids that are text or integers of any size, whole
numbers written as 1.0, true and false for 1 and 0, a byte order mark. Anything else is refused with a message that
names its line.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ssd.data.folder import other_layout
from ssd.data.index import LARGEST_SIDE, Index, leaves_folder
from ssd.data.texts import Id, Ids, Texts
from ssd.errors import DataError
from ssd.text import shortened, visible

__all__ = ["index_of", "parse_annotations", "sha256_of"]

Number = int | float
EXACT = 2**53
"""A float holds every whole number up to this one exactly."""
LARGEST_COORDINATE = 1e9
"""A box with a larger coordinate, in pixels, is refused. No image is so large."""
BYTE_ORDER_MARK, UTF_16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


class _Image(msgspec.Struct, gc=False):
    id: Number | str
    file_name: str
    width: Number
    height: Number


class _Annotation(msgspec.Struct, gc=False):
    id: Number | str
    image_id: Number | str
    category_id: Number | str
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: Number | bool


class _Category(msgspec.Struct, gc=False):
    id: Number | str
    name: str


class _Instances(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


ENTRIES: dict[str, Any] = {"images": _Image, "annotations": _Annotation, "categories": _Category}


class _Undecoded(msgspec.Struct, gc=False):
    """The same file with undecoded entries, which serves to find the entry that is wrong."""

    images: list[msgspec.Raw] = []
    annotations: list[msgspec.Raw] = []
    categories: list[msgspec.Raw] = []


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits. Raises DataError where the file cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError | ValueError) -> DataError:
    reason = getattr(error, "strerror", None) or str(error)
    hint = other_layout(path.parent.parent)
    return DataError(f"{path}: cannot be read ({reason}); check data_dir and its permissions{hint and f'. {hint}'}")


def parse_annotations(path: Path) -> Index:
    """Read an annotation file into an `Index`. Raises DataError, which names the file and the entry that is wrong."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    digest = hashlib.sha256(content).hexdigest()
    content = content.removeprefix(BYTE_ORDER_MARK)
    try:
        instances = msgspec.json.decode(content, type=_Instances)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = _what_and_where(content, error)
        raise DataError(f"{path}: not an annotation file in COCO's format: {what}") from error
    del content  # frees half a gigabyte, which is not needed any more
    return _flatten(instances, str(path), digest)


def index_of(content: dict[str, Any], source: str) -> Index:
    """The index of annotations that are a dict in COCO's format. source: their name in messages."""
    digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()
    try:
        return _flatten(msgspec.convert(content, _Instances), source, digest)
    except msgspec.ValidationError as error:
        raise DataError(f"{source}: not annotations in COCO's format: {error}") from error


def _what_and_where(content: bytes, error: Exception) -> str:
    """What is wrong with the text of an annotation file, with the line and the entry where they can be found."""
    if isinstance(error, RecursionError):
        return "its lists or objects lie deeper in each other than JSON of this kind ever does"
    if content.startswith(UTF_16):
        return "it is UTF-16 text: save it as UTF-8"
    if isinstance(error, UnicodeDecodeError):
        try:
            content.decode()
        except UnicodeDecodeError as found:
            return f"it is not UTF-8 text, in line {_line(content, found.start)}"
    if byte := re.search(r"\(byte (\d+)\)$", str(error)):
        at = int(byte[1])
        word = re.match(rb"-?(NaN|Infinity)", content[at : at + 9])
        what = f"{word[0].decode()} is no number in JSON" if word else str(error)
        return f"{what}, in line {_line(content, at)}"
    return f"{error}{_entry(content, str(error))}"


def _entry(content: bytes, message: str) -> str:
    """The number, from 1, and the line of the first entry that msgspec refuses. "" for a message about no entry."""
    named = re.search(r"\$\.(images|annotations|categories)\[", message)
    if named is None:
        return ""
    try:
        entries = getattr(msgspec.json.decode(content, type=_Undecoded), named[1])
    except (msgspec.DecodeError, RecursionError):  # of what comes behind the entry
        return ""
    for number, entry in enumerate(entries, 1):
        try:
            msgspec.json.decode(entry, type=ENTRIES[named[1]])
        except msgspec.DecodeError:
            # An equal entry that comes earlier would have been refused earlier. So the first one found is this entry.
            return f" (entry {number} of {named[1]}, in line {_line(content, content.find(bytes(entry)))})"
    return ""


def _line(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, max(place, 0)) + 1


def _shown(value: object) -> str:
    """A value of a file, for a message: shortened, and with control characters shown as text."""
    return shortened(visible(repr(value)), 80)


def _flatten(instances: _Instances, source: str, sha256: str) -> Index:
    """Check an annotation file and turn it into arrays, with annotations sorted by image. Raises DataError."""
    images, annotations, categories = instances.images, instances.annotations, instances.categories
    if not images or not categories:
        raise DataError(f"{source}: lists no {'categories' if images else 'images'}; both kinds of entries are needed")
    image_rows = _numbered(source, "image", [image.id for image in images])
    category_rows = _numbered(source, "category", [category.id for category in categories])
    annotation_ids = list(_numbered(source, "annotation", [annotation.id for annotation in annotations]))
    labels_of = {key: label for label, key in enumerate(_ascending(category_rows), 1)}
    names = {key: categories[row].name for key, row in category_rows.items()}

    owner = _found(source, image_rows, annotation_ids, [a.image_id for a in annotations], "image")
    labels = _found(source, labels_of, annotation_ids, [a.category_id for a in annotations], "category")
    sizes = _sizes(source, images)
    bboxes = np.fromiter(chain.from_iterable(a.bbox for a in annotations), np.float64).reshape(-1, 4)
    areas = np.fromiter((a.area for a in annotations), np.float64)
    wrong = (np.abs(bboxes) > LARGEST_COORDINATE).any(1) | (bboxes[:, 2:] < 0).any(1) | ~np.isfinite(bboxes).all(1)
    if (bad := np.flatnonzero(wrong | ~np.isfinite(areas))).size:
        raise DataError(
            f"{source}: annotation {_shown(annotation_ids[bad[0]])} has bbox {bboxes[bad[0]].tolist()}, area "
            f"{areas[bad[0]]}; a bbox is left, top, width, height in pixels, finite, no negative size"
        )
    order = np.argsort(owner, kind="stable")
    owner, bboxes = owner[order], bboxes[order]
    boxes = _fractions(bboxes, sizes[owner])
    counts = np.bincount(owner, minlength=len(images))
    places = {key: place for place, key in enumerate(_ascending(image_rows))}
    return Index(
        image_ids=Ids.of(image_rows),
        id_order=np.array([places[key] for key in image_rows], np.int64),
        file_names=_file_names(source, images),
        sizes=sizes,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=labels[order],
        usable=np.all(boxes[:, 2:] > boxes[:, :2], axis=1),
        bboxes=bboxes,
        areas=areas[order],
        iscrowd=np.array([a.iscrowd != 0 for a in annotations], np.bool_)[order],
        category_ids=Ids.of(labels_of),
        category_names=Texts.of(names[key] for key in labels_of),
        source=source,
        sha256=sha256,
    )


def _id(source: str, what: str, value: Number | str) -> Id:
    """An id as an integer or text. Raises DataError for a number with a fraction, or a float too large to be exact."""
    if not isinstance(value, float):
        return value
    if not value.is_integer() or abs(value) > EXACT:
        raise DataError(
            f"{source}: {what} id {value!r} is a number with a fraction, or too large for a float to be exact: ids are "
            "integers of any size, or text"
        )
    return int(value)


def _ids(source: str, what: str, values: Sequence[Number | str]) -> Sequence[Id]:
    """`_id` of each value. The values themselves where none is a float: a file of COCO's size holds two million ids."""
    floats = float in set(map(type, values))
    return [_id(source, what, value) for value in values] if floats else values  # type: ignore[return-value]


def _numbered(source: str, what: str, values: Sequence[Number | str]) -> dict[Id, int]:
    """The position of each id in the file. Raises DataError, which names the id, where an id occurs twice."""
    ids = _ids(source, what, values)
    places = dict(zip(ids, range(len(ids)), strict=True))
    if len(places) != len(ids):
        key, times = Counter(ids).most_common(1)[0]
        raise DataError(f"{source}: {what} id {_shown(key)} stands {times} times")
    return places


def _ascending(ids: Collection[Id]) -> list[Id]:
    """Ids in ascending order: first the numbers by value, then the texts by their characters."""
    numbers = sorted(key for key in ids if not isinstance(key, str))
    return [*numbers, *sorted(key for key in ids if isinstance(key, str))]


def _found(
    source: str, places: dict[Id, int], annotation_ids: list[Id], wanted: list[Number | str], what: str
) -> NDArray[np.int64]:
    """The position (A,) of the image or category of each annotation. Raises DataError for one that is not listed."""
    found = list(map(places.get, _ids(source, what, wanted)))
    if None in found:
        number = found.index(None)
        raise DataError(
            f"{source}: annotation {_shown(annotation_ids[number])} is of {what} {_shown(wanted[number])}, which is "
            f"not listed{_other_kind(places, wanted[number])}"
        )
    return np.array(found, np.int64)


def _other_kind(places: dict[Id, int], value: Number | str) -> str:
    """A hint where an id is listed as a number and referred to as text, or the other way round. "" elsewhere."""
    other: Id | None = str(value)
    if isinstance(value, str):
        other = int(value) if re.fullmatch(r"-?\d{1,1000}", value) else None
    return f" ({_shown(other)} is: write both as a number, or both as text)" if other in places else ""


def _sizes(source: str, images: list[_Image]) -> NDArray[np.int64]:
    """Width and height (I, 2) int64 of every image. Raises DataError for a size that no JPEG file can have."""
    for image in images:
        for side in (image.width, image.height):
            if not 1 <= side <= LARGEST_SIDE or side != int(side):
                raise DataError(
                    f"{source}: image {_shown(image.id)} has width and height {_shown([image.width, image.height])}; "
                    f"both are whole numbers of pixels from 1 to {LARGEST_SIDE:,}"
                )
    return np.array([(image.width, image.height) for image in images], np.int64)


def _file_names(source: str, images: list[_Image]) -> Texts:
    """The images' file names. Raises DataError for a name that leads out of the folder of its split."""
    for image in images:
        if leaves_folder(image.file_name):
            raise DataError(
                f"{source}: image {_shown(image.id)} has the file_name {_shown(image.file_name)}, which is no file "
                "inside the folder of its split: give its path in there"
            )
    return Texts.of(image.file_name for image in images)


def _fractions(bboxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Convert boxes (A, 4) float64, left, top, width, height in pixels, to ltrb (A, 4) float32, fractions of the image.

    sizes: (A, 2) int64, width and height of each box's image. The result is clipped to 0..1, because some boxes of COCO
    reach out of their image by a part of a pixel.
    """
    corners = np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], axis=1)
    return np.clip(corners / np.tile(sizes, 2), 0, 1).astype(np.float32)
