"""Keeps decoded images in an accelerator's memory, and has batches of their crops made on the device.

Pixels lie in one flat buffer for each plane. The op `crop` (`ssd.ops.crop`) cuts rectangles out and resizes them: by
the reference in plain torch, or by the kernel that a config asks for.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.ops import REFERENCE, Crop
from ssd.ops.crop import RGB_OF_YCBCR, Plane

__all__ = ["WORKSPACE", "PixelStore", "Storage", "image_bytes"]

Storage = Literal["rgb", "yuv420"]
"""rgb keeps the decoded pixels. yuv420 keeps colour at half the width and height, and takes half the memory."""

WORKSPACE = 2**29
"""Bytes that the reference of `crop` takes in addition to the shard. A kernel that needs less gets as much.

It takes 45 to 65 bytes for each pixel of a chunk: 8 for an index, 3 as bytes, 12 as floats, twice the half-resized
image, and the weights. The rest, as much again, is for the resulting batch and for the allocator.
"""

YCBCR_OF_RGB = np.linalg.inv(RGB_OF_YCBCR)


def image_bytes(sizes: NDArray[np.int64], storage: Storage) -> NDArray[np.int64]:
    """The bytes (n,) int64 that images of sizes (n, 2) int64, width and height, take.

    "rgb" takes 3 bytes for each pixel. "yuv420" takes 1 byte, and 2 bytes for each started 2x2 block of pixels.
    """
    if storage == "rgb":
        return 3 * sizes.prod(1)
    return sizes.prod(1) + 2 * (-(-sizes // 2)).prod(1)


class _Plane:
    """The memory of one plane of a shard, and where each image lies in it.

    sizes: (n, 2) int64, width and height of each image. channels: C. step: as in `Plane`. stored: the plane as the op
    `crop` takes it, on the device.
    """

    def __init__(self, sizes: NDArray[np.int64], channels: int, step: int, device: torch.device) -> None:
        cells = -(-sizes // step)
        self._edges = np.concatenate([[0], np.cumsum(cells.prod(1))])
        self.stored = Plane(
            torch.empty(int(self._edges[-1]), channels, dtype=torch.uint8, device=device),
            torch.from_numpy(self._edges[:-1]).to(device),
            torch.from_numpy(cells[:, 0].copy()).to(device),
            step,
        )

    def put(self, slot: int, pixels: NDArray[np.uint8]) -> None:
        """Store this plane (h, w, C) uint8 of one image."""
        memory = self.stored.pixels[self._edges[slot] : self._edges[slot + 1]]
        memory.copy_(torch.from_numpy(np.ascontiguousarray(pixels)).view(memory.shape))


class PixelStore:
    """The decoded images of a shard on the device. sizes: (n, 2) int64, width and height of each image.

    non_blocking: copies to the device do not wait for it.
    Threads: each slot is written by one thread, and `crops` is called when all slots are written.
    """

    def __init__(
        self, sizes: NDArray[np.int64], storage: Storage, device: torch.device, non_blocking: bool = False
    ) -> None:
        self.storage, self.device, self.non_blocking = storage, device, non_blocking
        planes = [(3, 1)] if storage == "rgb" else [(1, 1), (2, 2)]
        self.planes = [_Plane(sizes, channels, step, device) for channels, step in planes]

    def put(self, slot: int, image: Tensor) -> None:
        """Store a decoded image (3, h, w) uint8 RGB. Threads may store different slots at the same time."""
        pixels = image.permute(1, 2, 0).numpy()
        if self.storage == "rgb":
            self.planes[0].put(slot, pixels)
            return
        luma, chroma = _yuv420(pixels)
        self.planes[0].put(slot, luma)
        self.planes[1].put(slot, chroma)

    def crops(self, slots: NDArray[np.int64], rectangles: NDArray[np.int64], crop: Crop = REFERENCE.crop) -> Tensor:
        """Cut rectangles (B, 4) int64 out of the images in slots (B,) int64 and resize them by the op `crop`.

        A rectangle is left, top, right, bottom in pixels. Returns images (B, 300, 300, 3) uint8 on the device.
        """
        width, height = (rectangles[:, 2:] - rectangles[:, :2]).max(0).tolist()
        where = torch.from_numpy(np.column_stack([slots, rectangles])).to(self.device, non_blocking=self.non_blocking)
        planes = tuple(plane.stored for plane in self.planes)
        return crop(where[:, 0], where[:, 1:], planes, height=height, width=width)


def _yuv420(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Luma (h, w, 1) and chroma (ceil(h / 2), ceil(w / 2), 2), uint8, of RGB pixels (h, w, 3) uint8.

    Chroma is the mean of a 2x2 block.
    """
    planes = pixels.astype(np.float32) @ YCBCR_OF_RGB.T
    height, width = planes.shape[:2]
    even = np.pad(planes[..., 1:], ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    chroma = (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2]) / 4 + 128
    return _bytes(planes[..., :1]), _bytes(chroma)


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
