"""Decoded images in an accelerator's memory, and batches of their crops: cut out and resized on the device.

Pixels are gathered from one flat buffer and resized many images at once: the antialiased bilinear resize of torch and
PIL is linear in each direction, so it is a product with one matrix of weights a direction. Plain torch, in float32: one
pass over a chunk of images in three kernels that a fused one can replace.

Letters: B images of a chunk, n images of the store, P pixels of all of them, C channels, H and W the largest crop.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.counts import IMAGE_SIZE

__all__ = ["WORKSPACE", "PixelStore", "Storage", "image_bytes"]

Storage = Literal["rgb", "yuv420"]
"""rgb keeps what was decoded; yuv420 keeps colour at half the width and height, and takes half the memory."""

CHUNK_PIXELS = 2**22
"""Pixels, padding included, that are resized at once: 10 whole images of COCO's largest size."""

WORKSPACE = 2**29
"""Bytes the resize takes beside the shard: 45 to 65 a pixel of a chunk (an index of 8, 3 as bytes, 12 as floats, the
half-resized image twice, weights), and as much again for the batch that is made and for the allocator."""

# Rows: R, G, B of (Y, Cb - 128, Cr - 128), as JFIF defines them (ITU-R BT.601, full range); the inverse makes YCbCr.
RGB_OF_YCBCR = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
YCBCR_OF_RGB = np.linalg.inv(RGB_OF_YCBCR)


def image_bytes(sizes: NDArray[np.int64], storage: Storage) -> NDArray[np.int64]:
    """Bytes (n,) that images of sizes (n, 2), width and height, take: 3 a pixel, or 1 and two quarters, rounded up."""
    if storage == "rgb":
        return 3 * sizes.prod(1)
    return sizes.prod(1) + 2 * (-(-sizes // 2)).prod(1)


class _Plane:
    """One plane of every image of a shard, side by side in one flat buffer: pixels (P, C) uint8 on the device.

    step: 1 for a plane of full size, 2 for one of half the width and height. cells (n, 2): each image's width and
    height in it; starts (n,): where its first pixel lies.
    """

    def __init__(self, sizes: NDArray[np.int64], channels: int, step: int, device: torch.device) -> None:
        self.step, self.channels = step, channels
        cells = -(-sizes // step)
        self._edges = np.concatenate([[0], np.cumsum(cells.prod(1))])
        self.pixels = torch.empty(int(self._edges[-1]), channels, dtype=torch.uint8, device=device)
        self.starts = torch.from_numpy(self._edges[:-1]).to(device)
        self.widths = torch.from_numpy(cells[:, 0].copy()).to(device)

    def put(self, slot: int, pixels: NDArray[np.uint8]) -> None:
        """Keep an image's plane (h, w, C)."""
        flat = torch.from_numpy(np.ascontiguousarray(pixels)).view(-1, self.channels)
        self.pixels[self._edges[slot] : self._edges[slot + 1]].copy_(flat)

    def resized(self, slots: Tensor, rectangles: Tensor, height: int, width: int) -> Tensor:
        """(B, 300, 300, C) float32: each rectangle (B, 4) of the images in slots (B,), resized.

        height, width: of the largest rectangle, known on the host, so that nothing here waits for the device.
        """
        left, top, right, bottom = (rectangles.T / self.step).unbind()
        rows, down = _taps(top, bottom - top, -(-height // self.step) + self.step - 1)
        columns, across = _taps(left, right - left, -(-width // self.step) + self.step - 1)
        line = self.starts[slots, None] + rows * self.widths[slots, None]
        window = self.pixels[line[:, :, None] + columns[:, None, :]].float()  # (B, H, W, C)
        count, most = len(slots), window.shape[2]
        half = torch.bmm(down, window.flatten(2)).view(count, IMAGE_SIZE, most, self.channels)
        turned = half.transpose(1, 2).reshape(count, most, IMAGE_SIZE * self.channels)
        return torch.bmm(across, turned).view(count, IMAGE_SIZE, IMAGE_SIZE, self.channels).transpose(1, 2)


def _taps(start: Tensor, length: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Which cells of a line an antialiased bilinear resize to 300 reads, and with what weight.

    start, length (B,) float32: the stretch that is resized, in cells. most: at least the cells any stretch touches.
    Returns cells (B, most) int64 and weights (B, 300, most) float32; past a stretch's end its last cell, weight 0. The
    triangle is as wide as an output pixel, or as a cell where cells are wider, and cut off at the stretch's ends.
    """
    first = start.floor()
    count = (start + length).ceil() - first
    steps = torch.arange(most, device=start.device)
    cells = (first[:, None] + torch.minimum(steps, count[:, None] - 1)).long()
    scale = (length / IMAGE_SIZE)[:, None]
    centres = (start - first)[:, None] + scale * (torch.arange(IMAGE_SIZE, device=start.device) + 0.5)
    reach = scale.clamp(min=1)[:, :, None]
    weights = (1 - (steps + 0.5 - centres[:, :, None]).abs() / reach).clamp(min=0)
    weights = weights * (steps < count[:, None])[:, None]
    return cells, weights / weights.sum(2, keepdim=True)


class PixelStore:
    """The decoded images of a shard on the device. sizes (n, 2): width and height of each."""

    def __init__(self, sizes: NDArray[np.int64], storage: Storage, device: torch.device) -> None:
        self.storage, self.device = storage, device
        planes = [(3, 1)] if storage == "rgb" else [(1, 1), (2, 2)]
        self.planes = [_Plane(sizes, channels, step, device) for channels, step in planes]
        self._to_rgb = torch.from_numpy(RGB_OF_YCBCR.T.copy()).to(device)

    def put(self, slot: int, image: Tensor) -> None:
        """Keep a decoded image (3, h, w) uint8 RGB. Threads may put different slots at once."""
        pixels = image.permute(1, 2, 0).numpy()
        if self.storage == "rgb":
            self.planes[0].put(slot, pixels)
            return
        luma, chroma = _yuv420(pixels)
        self.planes[0].put(slot, luma)
        self.planes[1].put(slot, chroma)

    def crops(self, slots: NDArray[np.int64], rectangles: NDArray[np.int64]) -> Tensor:
        """Images (B, 300, 300, 3) uint8 on the device: rectangles (B, 4) of the images in slots (B,), resized."""
        width, height = (rectangles[:, 2:] - rectangles[:, :2]).max(0).tolist()
        per_chunk = max(1, CHUNK_PIXELS // (width * height))
        where = torch.from_numpy(np.column_stack([slots, rectangles])).to(self.device, non_blocking=True)
        images = [self._chunk(part[:, 0], part[:, 1:], height, width) for part in where.split(per_chunk)]
        return torch.cat(images)

    def _chunk(self, slots: Tensor, rectangles: Tensor, height: int, width: int) -> Tensor:
        resized = torch.cat([plane.resized(slots, rectangles, height, width) for plane in self.planes], dim=3)
        if self.storage == "yuv420":
            resized[..., 1:] -= 128
            resized = resized @ self._to_rgb
        return resized.round().clamp(0, 255).to(torch.uint8)


def _yuv420(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Luma (h, w, 1) and chroma (ceil(h / 2), ceil(w / 2), 2) of RGB pixels (h, w, 3); chroma is the mean of a 2x2."""
    planes = pixels.astype(np.float32) @ YCBCR_OF_RGB.T
    height, width = planes.shape[:2]
    even = np.pad(planes[..., 1:], ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    chroma = (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2]) / 4 + 128
    return _bytes(planes[..., :1]), _bytes(chroma)


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
