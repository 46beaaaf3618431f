"""Makes an annotation file of COCO's size, without any image: 118,287 images, 860,001 boxes, 463 MB.

    python bench/coco_sized.py --output FILE [--images N --boxes N]

Its fields, their order and the length of its outlines are those of instances_train2017.json. The values are drawn from
a seed, so every machine makes the same bytes. 1,021 of the images have no box, as in COCO. It takes about 10 s.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

__all__ = ["BOXES", "CATEGORY_IDS", "IMAGES", "write_annotations"]

IMAGES, BOXES = 118_287, 860_001
CATEGORY_IDS = tuple(n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
WITHOUT_BOX = 1_021 / IMAGES
OUTLINES, POINTS = 512, 26
"""So many outlines are drawn, and each annotation gets one of them. They have this number of points on average."""
AT_ONCE = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--output", type=Path, required=True, help="the file to write")
    flags.add_argument("--images", type=int, default=IMAGES)
    flags.add_argument("--boxes", type=int, default=BOXES)
    asked = flags.parse_args(argv)
    write_annotations(asked.output, asked.images, asked.boxes)
    print(f"{asked.output}: {asked.output.stat().st_size / 1e6:.0f} MB")
    return 0


def write_annotations(path: Path, images: int = IMAGES, boxes: int = BOXES) -> None:
    """Write an annotation file with so many images and boxes."""
    r = np.random.default_rng(0)
    ids = r.choice(600_000, images, replace=False)
    sizes = np.where(r.random((images, 1)) < 0.7, (640, 480), (480, 640))
    with path.open("w", encoding="ascii") as file:
        file.write('{"info": {"description": "made, no image exists", "year": 2017},"licenses": [],"images": [')
        for number, text in enumerate(_images(ids, sizes, r)):
            file.write(f",{text}" if number else text)
        file.write('],"annotations": [')
        for number, text in enumerate(_annotations(ids, sizes, boxes, r)):
            file.write(f",{text}" if number else text)
        categories = [{"supercategory": "thing", "id": key, "name": f"kind {key}"} for key in CATEGORY_IDS]
        file.write(f'],"categories": {json.dumps(categories)}}}')


def _images(ids: np.ndarray, sizes: np.ndarray, r: np.random.Generator) -> Iterator[str]:
    """The text of each image. ids (I,), sizes (I, 2): width and height."""
    numbers = r.integers(10**9, 10**10, len(ids))
    for key, (width, height), number in zip(ids.tolist(), sizes.tolist(), numbers.tolist(), strict=True):
        yield (
            f'{{"license": 3,"file_name": "{key:012d}.jpg","coco_url": '
            f'"http://images.cocodataset.org/train2017/{key:012d}.jpg","height": {height},"width": {width},'
            f'"date_captured": "2013-11-14 11:18:45","flickr_url": '
            f'"http://farm9.staticflickr.com/8186/{number}_4e622c8349_z.jpg","id": {key}}}'
        )


def _annotations(ids: np.ndarray, sizes: np.ndarray, boxes: int, r: np.random.Generator) -> Iterator[str]:
    """The text of each annotation, in an order that has nothing to do with the images'."""
    outlines = [_outline(r) for _ in range(OUTLINES)]
    owners = np.arange(int(len(ids) * WITHOUT_BOX), len(ids))
    keys = 1_000 + 2 * r.permutation(boxes)
    for start in range(0, boxes, AT_ONCE):
        count = min(AT_ONCE, boxes - start)
        owner = owners[(start + np.arange(count)) % len(owners)] if start < len(owners) else r.choice(owners, count)
        side = (8 + 300 * r.random((count, 2)) ** 3).round(2)
        corner = ((sizes[owner] - side) * r.random((count, 2))).round(2)
        area = side.prod(1) * r.uniform(0.4, 0.9, count)
        kind = r.choice(CATEGORY_IDS, count)
        which, crowd = r.integers(OUTLINES, size=count), r.random(count) < 0.01
        columns = (ids[owner], np.hstack([corner, side]), area, kind, which, crowd, keys[start : start + count])
        for image, (x, y, w, h), whole, category, outline, many, key in zip(
            *(c.tolist() for c in columns), strict=True
        ):
            yield (
                f'{{"segmentation": [[{outlines[outline]}]],"area": {whole!r},"iscrowd": {int(many)},'
                f'"image_id": {image},"bbox": [{x!r},{y!r},{w!r},{h!r}],"category_id": {category},"id": {key}}}'
            )


def _outline(r: np.random.Generator) -> str:
    """The coordinates of one outline, as text."""
    points = r.uniform(0, 640, 2 * int(3 + r.exponential(POINTS - 3))).round(2)
    return ",".join(map(repr, points.tolist()))


if __name__ == "__main__":
    sys.exit(main())
