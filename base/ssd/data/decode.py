"""From a JPEG file to 300x300 pixels: decode, cut out the crop's rectangle, resize with antialiasing, all in uint8.

torchvision decodes without holding the GIL. It converts greyscale and CMYK to RGB as PIL does, and it raises an error
for a truncated file. torch's uint8 resize differs from PIL's by a fraction of a grey level and takes less than half the
time. EXIF orientation is ignored, because COCO's boxes are drawn on the pixels as they are stored.

The header of a file is compared with the annotations before anything is decoded (ssd.data.jpeg).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssd.counts import IMAGE_SIZE
from ssd.data.jpeg import read_frame, why_too_much
from ssd.errors import DataError

__all__ = ["crop_and_resize", "decode", "decoder", "load_image", "read_jpeg", "resize"]

SOURCE = re.compile(r"^.*\.cpp:\d+, ")
"""The start of a message of torchvision, which names a line of its sources. Messages to users leave it out."""


@cache
def decoder() -> Callable[[Tensor], Tensor]:
    """torchvision's decoder, from the bytes (n,) uint8 of a JPEG file to its pixels (3, H, W) uint8 RGB.

    Importing torchvision takes half as long again as importing torch, and what only looks at files does without. A
    loader calls this when it is made, so that no first batch waits for it.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    return partial(decode_jpeg, mode=ImageReadMode.RGB)


def read_jpeg(path: Path | str, image_id: object, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The content (bytes,) uint8 of a JPEG file whose header is sound. Nothing is decoded.

    image_id: a message names the image by its text. size: width and height according to the annotation file. Boxes are
    fractions of them, so a file of another size raises DataError. So does a file that cannot be read, is not a JPEG, or
    is too large to decode (ssd.data.jpeg). The message names the file and the image.
    """

    def refused(why: object) -> DataError:
        return DataError(f"{path} (image {image_id}): {why}")

    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise refused(f"cannot be read ({reason}); `prepare` checks and completes data_dir") from error
    if not content.size:
        raise refused("the file is empty; fetch it again")
    frame = read_frame(content.data)
    if frame is None:
        raise refused("not a whole JPEG file (no header of a JPEG's frame); fetch it again")
    if size is not None and (frame.width, frame.height) != tuple(size):
        raise refused(
            f"has {frame.width}x{frame.height} pixels, its annotation file says {size[0]}x{size[1]}; "
            "image and annotations belong to different data sets"
        )
    if reason := why_too_much(frame):
        raise refused(f"{reason}; fetch it again")
    return content


def _content(path: Path | str) -> NDArray[np.uint8]:
    """The bytes (n,) uint8 of a file. np.fromfile takes three times as long."""
    file = os.open(path, os.O_RDONLY)
    try:
        content = np.empty(os.fstat(file).st_size, np.uint8)
        return content[: os.readv(file, [content.data])]
    finally:
        os.close(file)


def decode(path: Path | str, image_id: object, size: tuple[int, int] | None = None) -> Tensor:
    """The pixels (3, H, W) uint8 RGB of a JPEG file. Raises DataError as `read_jpeg` does, and for damaged data."""
    content, decode_jpeg = read_jpeg(path, image_id, size), decoder()
    try:
        return decode_jpeg(torch.from_numpy(content))
    except Exception as error:  # torchvision raises errors of several classes; each means that the file is damaged
        reason = SOURCE.sub("", f"{error}".partition("\n")[0]) or type(error).__name__
        raise DataError(f"{path} (image {image_id}): not a whole JPEG file ({reason}); fetch it again") from error


def resize(pixels: NDArray[np.uint8], out: Tensor) -> None:
    """Resize pixels (h, w, 3) uint8, contiguous, into out (300, 300, 3) uint8, bilinear with antialiasing.

    The pixels are passed to torch as a channels-last batch of one image. torch then resizes them without rearranging
    them, in this thread alone. Views are made by numpy, in a third of torch's time.
    """
    batch = torch.from_numpy(pixels.reshape(1, *pixels.shape).transpose(0, 3, 1, 2))
    resized = functional.interpolate(batch, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True)
    np.copyto(out.numpy(), resized.numpy()[0].transpose(1, 2, 0))


def load_image(
    path: Path | str,
    image_id: object,
    size: tuple[int, int],
    out: Tensor,
    rectangle: tuple[int, int, int, int] | None = None,
) -> None:
    """Decode (see `decode`), crop and resize one image into out (300, 300, 3) uint8.

    rectangle: left, top, right, bottom in pixels. None means the whole image.
    """
    pixels = decode(path, image_id, size)
    crop_and_resize(pixels.numpy().transpose(1, 2, 0), rectangle or (0, 0, *size), out)


def crop_and_resize(pixels: NDArray[np.uint8], rectangle: tuple[int, int, int, int], out: Tensor) -> None:
    """Cut a rectangle out of pixels (h, w, 3) uint8 and resize it into out (300, 300, 3) uint8.

    rectangle: left, top, right, bottom in pixels.
    """
    left, top, right, bottom = rectangle
    # numpy copies here and not torch, because torch would start a team of threads for it in every worker. On two busy
    # cores a crop took 15 ms with torch and 0.2 ms with numpy.
    resize(np.ascontiguousarray(pixels[top:bottom, left:right]), out)
