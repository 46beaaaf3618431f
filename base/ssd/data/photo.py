"""Reads any picture of a user by Pillow: an RGB image with 8 bits a colour, or a message about what is wrong.

Pillow converts values of 16 bits to 8 bits by clipping them to 255, so a grey picture of 16 bits would become white.
Here such a picture is scaled by the range that its file states. A file that states no range is refused. That concerns
values of 32 bits and floating point.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ssd.data.jpeg import MAX_PIXELS, START, read_frame, why_too_much
from ssd.errors import DataError
from ssd.text import shortened, visible

__all__ = ["SUFFIXES", "read_photo"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""A file of a folder with one of these suffixes counts as a picture."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""The formats that Pillow may read; its reader of JPEG reads MPO too. Others start programs (EPS) or hold no photos."""
BITS, PHOTOMETRIC, ORIENTATION = 258, 262, 274
"""Tags of TIFF and EXIF: the bits of a value, the meaning of the value 0 (0: white), and how the camera was held."""


def read_photo(path: Path) -> Image.Image:
    """Read an RGB image with 8 bits a colour, turned upright by its EXIF orientation. Of several frames, the first.

    Raises DataError for a file that is missing, cannot be read, is not a picture, is damaged, has more than MAX_PIXELS
    pixels or MAX_SCANS scans (ssd.data.jpeg), or has values whose range it does not state.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        _require_small(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged tags, and about many pixels, which are checked below
            with Image.open(path, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise DataError(f"{path}: {_too_large(opened.width, opened.height)}")
                return ImageOps.exif_transpose(_eight_bits(opened)).convert("RGB")
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: it has too many pixels; at most {MAX_PIXELS:,} are decoded ({error})") from error
    except Exception as error:  # Pillow raises errors of many classes for a damaged file; each is the file's fault
        reason = shortened(visible(f"{error}".partition("\n")[0])) or type(error).__name__
        raise DataError(f"{path}: not an image that can be read ({reason})") from error


def _too_large(width: int, height: int) -> str:
    return f"has {width} x {height} pixels, and at most {MAX_PIXELS:,} are decoded"


def _require_small(path: Path) -> None:
    """Raise DataError for a JPEG file whose header claims too much. Pillow has no limit on the number of scans."""
    with path.open("rb") as file:
        head = file.read(3)
        frame = read_frame(head + file.read()) if head == START else None
    if frame and (reason := why_too_much(frame)):
        raise DataError(f"{path}: {reason}")


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with values of 8 bits. Raises ValueError where the file does not state the range of its values."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        numbers = "floating point" if image.mode == "F" else "32 bits"
        raise ValueError(
            f"its values are of {numbers}, and the file does not state their range: save it with 8 or 16 bits"
        )
    if not image.mode.startswith("I"):
        return image
    tags = dict(getattr(image, "tag_v2", {}))
    most = 2 ** int(tags.get(BITS, (16,))[0]) - 1  # formats other than TIFF have no such tag: Pillow gives 16 bits
    grey = np.asarray(image).astype(np.float32) * (255 / most)
    if tags.get(PHOTOMETRIC) == 0:
        grey = 255 - grey
    scaled = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    if orientation := image.getexif().get(ORIENTATION):
        scaled.getexif()[ORIENTATION] = orientation
    return scaled
