"""Pictures of detections: boxes with class and score drawn on images, ground truth in thin white beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["Box", "contact_sheet", "detected", "draw_boxes", "truth"]

COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4")
WHITE = "#ffffff"


@dataclass(frozen=True)
class Box:
    """A box to draw: ltrb in pixels, what to write on it, its colour, the width of its outline in pixels."""

    ltrb: tuple[float, float, float, float]
    text: str = ""
    colour: str = WHITE
    outline: int = 1


def detected(rows: np.ndarray, names: Mapping[int, str], score: float) -> list[Box]:
    """Boxes of one image's COCO result rows (n, 7), those with at least `score`, best on top. names: by category id."""
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
    """A copy of the image with the boxes on it, their coordinates multiplied by `scale`."""
    image = image.convert("RGB")
    pen = ImageDraw.Draw(image)
    # An untrained network's boxes can be millions of pixels wide, and Pillow walks along all of an outline.
    outer = np.array([image.width, image.height] * 2) + 10
    for box in boxes:
        left, top, right, bottom = np.clip(np.array(box.ltrb) * [*scale, *scale], -10, outer).tolist()
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=box.colour, width=box.outline)
        if box.text:
            place = (max(left, 0) + 2, max(top, 0) + 2)
            pen.rectangle(pen.textbbox(place, box.text), fill=box.colour)
            pen.text(place, box.text, fill="#000000")
    return image


def contact_sheet(tiles: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Pictures of one size in rows of `columns`."""
    width, height = tiles[0].size
    sheet = Image.new("RGB", (min(columns, len(tiles)) * width, -(-len(tiles) // columns) * height))
    for place, tile in enumerate(tiles):
        sheet.paste(tile, ((place % columns) * width, (place // columns) * height))
    return sheet
