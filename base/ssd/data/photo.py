"""Any picture of a user's, by Pillow: an image of 8 bits a colour as a person sees it, or what is wrong with the file.

Pillow turns numbers of 16 bits into 8 by cutting off all above 255, so a grey picture of 16 bits would become white.
Here such a picture is scaled by the range that its file states. Where a file states no range, as with numbers of 32
bits or floating point, it is refused.
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
"""Endings of the files in a folder that are taken for pictures."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "MPO")
"""What Pillow may take a file for. Others of its formats start programs (EPS), or are no photos."""
BITS, PHOTOMETRIC, ORIENTATION = 258, 262, 274
"""Tags of TIFF and EXIF: bits of each number, what the number 0 means (0: white), how the camera was held."""


def read_photo(path: Path) -> Image.Image:
    """An RGB image of 8 bits a colour, turned as the camera was held (EXIF). Of several frames it is the first.

    Raises DataError for a file that is missing, cannot be read, is no picture, is damaged, has more than MAX_PIXELS
    pixels or MAX_SCANS scans (ssd.data.jpeg), or has numbers whose range it does not state. Whatever Pillow raises is
    taken for the file's fault.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        _require_small(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged tags, and of many pixels, which are counted here
            with Image.open(path, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise DataError(f"{path}: {_too_large(opened.width, opened.height)}")
                return ImageOps.exif_transpose(_eight_bits(opened)).convert("RGB")
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: it has too many pixels; at most {MAX_PIXELS:,} are decoded ({error})") from error
    except Exception as error:  # of whatever kind: the file is at fault
        reason = shortened(visible(f"{error}".partition("\n")[0])) or type(error).__name__
        raise DataError(f"{path}: not an image that can be read ({reason})") from error


def _too_large(width: int, height: int) -> str:
    return f"has {width} x {height} pixels, and at most {MAX_PIXELS:,} are decoded"


def _require_small(path: Path) -> None:
    """DataError for a JPEG file whose header claims too much. Pillow knows no bound on scans."""
    with path.open("rb") as file:
        head = file.read(3)
        frame = read_frame(head + file.read()) if head == START else None
    if frame and (reason := why_too_much(frame)):
        raise DataError(f"{path}: {reason}")


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with numbers of 8 bits. ValueError where the file does not state the range of its numbers."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        numbers = "floating point" if image.mode == "F" else "32 bits"
        raise ValueError(
            f"its numbers are of {numbers}, and the file does not state their range: save it with 8 or 16 bits"
        )
    if not image.mode.startswith("I"):
        return image
    tags = dict(getattr(image, "tag_v2", {}))
    most = 2 ** int(tags.get(BITS, (16,))[0]) - 1  # Pillow scales the others of these formats to 16 bits itself
    grey = np.asarray(image).astype(np.float32) * (255 / most)
    if tags.get(PHOTOMETRIC) == 0:
        grey = 255 - grey
    scaled = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    if orientation := image.getexif().get(ORIENTATION):
        scaled.getexif()[ORIENTATION] = orientation
    return scaled
