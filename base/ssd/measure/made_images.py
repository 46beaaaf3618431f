"""A COCO folder of made pictures, for a machine that has no data set yet: as large in pixels and bytes as COCO's.

A picture is smooth colours under fine noise, 640x480, written as JPEG of quality 90. The noise is chosen so that a file
has about 163 kB, the mean of train2017: decoding takes about as long as that of a photo.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssd.data.folder import TRAIN, VAL, annotation_file

__all__ = ["make_folder", "picture"]

WIDTH, HEIGHT = 640, 480
NOISE = 21.0
"""Standard deviation of the noise in grey levels."""
BOXES = 7
"""Boxes of an image, as COCO's have on average."""
EVALUATED = 8
"""Validation images: a run looks at their headers, and nothing here evaluates them."""


def make_folder(folder: Path, num_classes: int, pictures: int, copies: int) -> None:
    """Write `copies` files of each of so many different pictures, and annotations with num_classes - 1 categories."""
    rng = np.random.default_rng(3)
    (folder / "annotations").mkdir(parents=True)
    contents = [picture(rng) for _ in range(pictures)]
    for split, count in ((TRAIN, pictures * copies), (VAL, min(EVALUATED, pictures))):
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(1, count + 1):
            name = f"{number:012d}.jpg"
            (folder / split / name).write_bytes(contents[number % pictures])
            images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            for _ in range(BOXES):
                left, top = rng.uniform(0, 0.6, 2) * (WIDTH, HEIGHT)
                width, height = rng.uniform(0.1, 0.35, 2) * (WIDTH, HEIGHT)
                annotation = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, "area": width * height}
                annotation |= {"category_id": 1 + len(annotations) % (num_classes - 1)}
                annotations.append({**annotation, "bbox": [left, top, width, height]})
        categories = [{"id": label, "name": f"made {label}"} for label in range(1, num_classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        annotation_file(folder, split).write_text(json.dumps(content), encoding="utf-8")
    os.sync()  # what is not on the disk yet cannot be read from it


def picture(rng: np.random.Generator, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A JPEG file of a picture that is drawn from `rng`."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + rng.normal(0, NOISE, (height, width, 1)).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
