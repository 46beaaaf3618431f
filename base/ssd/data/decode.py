"""A JPEG file to 300x300 pixels: decode, cut the crop's rectangle, resize with antialiasing, all in uint8.

torchvision decodes without holding the GIL, turns greyscale and CMYK into RGB as PIL does, and raises on a truncated
file; torch's uint8 resize is within a fraction of a grey level of PIL's and takes less than half of its time. EXIF
orientation is ignored, as COCO's boxes are drawn on the pixels as they are stored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from ssd.errors import DataError

__all__ = ["SIZE", "decode", "load_image", "resize"]

SIZE = 300
"""Side of the network's input in pixels."""


def decode(path: Path, image_id: int) -> Tensor:
    """Pixels (3, H, W) uint8 RGB of a JPEG file. DataError names the file and the image that cannot be read."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(
            f"{path} (image {image_id}): cannot be read ({error.strerror}); `prepare` checks and completes data_dir"
        ) from error
    if not content.size:
        raise DataError(f"{path} (image {image_id}): the file is empty; fetch it again")
    try:
        return decode_jpeg(torch.from_numpy(content), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} (image {image_id}): not a whole JPEG file ({reason}); fetch it again, or leave it out with "
            "corrupt_images=skip"
        ) from error


def resize(pixels: Tensor, out: Tensor) -> None:
    """Resize pixels (3, h, w) uint8, h and w at least 1, into out (300, 300, 3) uint8; bilinear with antialiasing."""
    resized = functional.interpolate(pixels[None], size=(SIZE, SIZE), mode="bilinear", antialias=True)
    # numpy's copy, not torch's: it runs in this thread alone and leaves the other decoders their cores.
    np.copyto(out.numpy(), resized[0].permute(1, 2, 0).numpy())


def load_image(
    path: Path,
    image_id: int,
    size: tuple[int, int],
    out: Tensor,
    rectangle: tuple[int, int, int, int] | None = None,
) -> None:
    """Decode, crop and resize one image into out (300, 300, 3) uint8.

    size: width and height the annotation file claims; boxes are fractions of them, so another size is a DataError.
    rectangle: left, top, right, bottom in pixels; None is the whole image.
    """
    pixels = decode(path, image_id)
    height, width = pixels.shape[1:]
    if (width, height) != tuple(size):
        raise DataError(
            f"{path} (image {image_id}): has {width}x{height} pixels, its annotation file says {size[0]}x{size[1]}; "
            "image and annotations belong to different data sets"
        )
    left, top, right, bottom = rectangle or (0, 0, width, height)
    resize(pixels[:, top:bottom, left:right], out)
