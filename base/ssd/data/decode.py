"""A JPEG file to 300x300 pixels: decode, cut the crop's rectangle, resize with antialiasing, all in uint8.

torchvision decodes without holding the GIL, turns greyscale and CMYK into RGB as PIL does, and raises on a truncated
file; torch's uint8 resize is within a fraction of a grey level of PIL's and takes less than half of its time. EXIF
orientation is ignored, as COCO's boxes are drawn on the pixels as they are stored.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from ssd.counts import IMAGE_SIZE
from ssd.errors import DataError

__all__ = ["decode", "load_image", "resize"]

SOURCE = re.compile(r"^.*\.cpp:\d+, ")
"""Where in torchvision's sources its message comes from."""


def decode(path: Path, image_id: int | str, size: tuple[int, int] | None = None) -> Tensor:
    """Pixels (3, H, W) uint8 RGB of a JPEG file. DataError names the file and the image that cannot be read.

    size: width and height the annotation file claims; boxes are fractions of them, so another size is a DataError.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(
            f"{path} (image {image_id}): cannot be read ({error.strerror}); `prepare` checks and completes data_dir"
        ) from error
    if not content.size:
        raise DataError(f"{path} (image {image_id}): the file is empty; fetch it again")
    try:
        pixels = decode_jpeg(torch.from_numpy(content), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        reason = SOURCE.sub("", str(error).splitlines()[0])
        raise DataError(f"{path} (image {image_id}): not a whole JPEG file ({reason}); fetch it again") from error
    height, width = pixels.shape[1:]
    if size is not None and (width, height) != tuple(size):
        raise DataError(
            f"{path} (image {image_id}): has {width}x{height} pixels, its annotation file says {size[0]}x{size[1]}; "
            "image and annotations belong to different data sets"
        )
    return pixels


def resize(pixels: NDArray[np.uint8], out: Tensor) -> None:
    """Resize pixels (h, w, 3) uint8, contiguous, into out (300, 300, 3) uint8; bilinear with antialiasing.

    Seen as a channels-last batch of one, torch resizes interleaved pixels directly, in this thread alone.
    """
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(batch, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True)
    np.copyto(out.numpy(), resized[0].permute(1, 2, 0).numpy())


def load_image(
    path: Path,
    image_id: int | str,
    size: tuple[int, int],
    out: Tensor,
    rectangle: tuple[int, int, int, int] | None = None,
) -> None:
    """Decode (see `decode`), crop and resize one image into out (300, 300, 3) uint8.

    rectangle: left, top, right, bottom in pixels; None is the whole image.
    """
    pixels = decode(path, image_id, size)
    left, top, right, bottom = rectangle or (0, 0, *size)
    # numpy's copy, not torch's: torch would start a team of threads in every worker for it (on two busy cores a crop
    # took 15 ms so, and 0.2 ms this way).
    resize(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()[top:bottom, left:right]), out)
