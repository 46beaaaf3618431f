"""Pictures of detections: boxes with class and score drawn on images, ground truth in thin white beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["Box", "contact_sheet", "detected", "draw_boxes", "truth"]

COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4")
WHITE = "#ffffff"
LEGEND_LINE = 16
"""Height of a line of the legend, in pixels."""
Place = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class Box:
    """A box to draw: ltrb in pixels, what to write on it, its colour, the width of its outline in pixels."""

    ltrb: tuple[float, float, float, float]
    text: str = ""
    colour: str = WHITE
    outline: int = 1


def detected(rows: np.ndarray, names: Mapping[int, str], score: float) -> list[Box]:
    """The boxes to draw of one image's detections (n, 7) float64 with at least `score`; the best are drawn last.

    names: the categories' names by id.
    """
    order = {category: place for place, category in enumerate(sorted(names))}
    boxes = []
    for _, left, top, width, height, found, category in sorted(rows.tolist(), key=lambda row: row[5]):
        if found >= score:
            colour = COLOURS[order[int(category)] % len(COLOURS)]
            text = f"{names[int(category)]} {found:.2f}"
            boxes.append(Box((left, top, left + width, top + height), text, colour, 3))
    return boxes


def truth(annotations: Iterable[Mapping[str, Any]]) -> list[Box]:
    """Boxes of one image's COCO annotations, with the `name` of their category where they have one."""
    known = [(annotation["bbox"], str(annotation.get("name", ""))) for annotation in annotations]
    return [Box((left, top, left + width, top + height), name) for (left, top, width, height), name in known]


def draw_boxes(image: Image.Image, boxes: Sequence[Box], scale: tuple[float, float] = (1.0, 1.0)) -> Image.Image:
    """A copy of the image with the boxes on it, their coordinates multiplied by `scale`.

    No label covers another. Boxes that come later are on top, and choose the place of their label first; a label for
    which its box has no place left is not written.
    """
    image = image.convert("RGB")
    pen = ImageDraw.Draw(image)
    labels: list[tuple[Box, Place]] = []
    # An untrained network's boxes can be millions of pixels wide, and Pillow walks along all of an outline.
    outer = np.array([image.width, image.height] * 2) + 10
    for box in boxes:
        left, top, right, bottom = np.clip(np.array(box.ltrb) * [*scale, *scale], -10, outer).tolist()
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=box.colour, width=box.outline)
        if box.text:
            labels.append((box, (left, top, max(left, right), max(top, bottom))))
    taken: list[Place] = []
    for box, place in reversed(labels):
        shift = pen.textbbox((0, 0), box.text)
        size = (shift[2] - shift[0] + 2, shift[3] - shift[1] + 2)
        free = next((one for one in _label_places(place, size, image.size) if not _covers_any(one, taken)), None)
        if free is not None:
            taken.append(free)
            pen.rectangle(free, fill=box.colour)
            pen.text((free[0] + 1 - shift[0], free[1] + 1 - shift[1]), box.text, fill="#000000")
    return image


def _label_places(box: Place, label: tuple[float, float], image: tuple[int, int]) -> Iterator[Place]:
    """Where a label of a box may stand, best first: in its corners, above and below it, then down its left edge.

    All are inside the image; a label that is larger than the image begins at its edge.
    """
    (left, top, right, bottom), (width, height) = box, label
    inner = [(left + 2, top + 2), (left + 2, bottom - height - 2), (right - width - 2, top + 2)]
    inner += [(right - width - 2, bottom - height - 2), (left, top - height - 1), (left, bottom + 1)]
    down = int((min(bottom, image[1]) - max(top, 0)) // (height + 1))
    inner += [(left + 2, max(top, 0) + 2 + step * (height + 1)) for step in range(1, down)]
    for x, y in inner:
        x, y = (max(0.0, min(at, most - size - 1)) for at, most, size in zip((x, y), image, label, strict=True))
        yield x, y, x + width, y + height


def _covers_any(place: Place, others: Iterable[Place]) -> bool:
    left, top, right, bottom = place
    return any(left <= one[2] and one[0] <= right and top <= one[3] and one[1] <= bottom for one in others)


def contact_sheet(tiles: Sequence[Image.Image], columns: int = 4, legend: str = "") -> Image.Image:
    """Pictures of one size in rows of `columns`. The legend, one line or several, stands on white above them."""
    width, height = tiles[0].size
    lines = legend.splitlines()
    head = len(lines) * LEGEND_LINE
    sheet = Image.new("RGB", (min(columns, len(tiles)) * width, head + -(-len(tiles) // columns) * height))
    pen = ImageDraw.Draw(sheet)
    sheet.paste(WHITE, (0, 0, sheet.width, head))
    for number, line in enumerate(lines):
        pen.text((4, number * LEGEND_LINE + 2), line, fill="#000000")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, ((place % columns) * width, head + (place // columns) * height))
    return sheet
