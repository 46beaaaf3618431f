"""Keeps decoded images in an accelerator's memory, and makes batches of their crops on the device.

Pixels are gathered from one flat buffer, and many images are resized at once. The antialiased bilinear resize of torch
and PIL is linear in each direction. So it is a product with one matrix of weights for each direction. The code is plain
torch in float32. It processes a chunk of images with three kernels, which one fused kernel could replace.

These letters name sizes: B images of a chunk, n images of the store, P pixels of all its images, C channels, H and W
the height and width of the largest crop.
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
"""rgb keeps the decoded pixels. yuv420 keeps colour at half the width and height, and takes half the memory."""

CHUNK_PIXELS = 2**22
"""Pixels, padding included, that are resized at once. That is 10 whole images of COCO's largest size."""

WORKSPACE = 2**29
"""Bytes that the resize takes in addition to the shard.

It takes 45 to 65 bytes for each pixel of a chunk: 8 for an index, 3 as bytes, 12 as floats, twice the half-resized
image, and the weights. The rest, as much again, is for the resulting batch and for the allocator.
"""

# The rows give R, G and B from (Y, Cb - 128, Cr - 128), as JFIF defines them (ITU-R BT.601, full range).
RGB_OF_YCBCR = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
YCBCR_OF_RGB = np.linalg.inv(RGB_OF_YCBCR)


def image_bytes(sizes: NDArray[np.int64], storage: Storage) -> NDArray[np.int64]:
    """The bytes (n,) int64 that images of sizes (n, 2) int64, width and height, take.

    "rgb" takes 3 bytes for each pixel. "yuv420" takes 1 byte, and 2 bytes for each started 2x2 block of pixels.
    """
    if storage == "rgb":
        return 3 * sizes.prod(1)
    return sizes.prod(1) + 2 * (-(-sizes // 2)).prod(1)


class _Plane:
    """One plane of every image of a shard, one image after the other in a flat buffer.

    sizes: (n, 2) int64, width and height of each image. channels: C. step: 1 for a plane of full size, 2 for a plane of
    half the width and height. pixels: (P, C) uint8 on the device. starts: (n,) int64, the first pixel of each image in
    the buffer. widths: (n,) int64, each image's width in this plane.
    """

    def __init__(self, sizes: NDArray[np.int64], channels: int, step: int, device: torch.device) -> None:
        self.step, self.channels = step, channels
        cells = -(-sizes // step)
        self._edges = np.concatenate([[0], np.cumsum(cells.prod(1))])
        self.pixels = torch.empty(int(self._edges[-1]), channels, dtype=torch.uint8, device=device)
        self.starts = torch.from_numpy(self._edges[:-1]).to(device)
        self.widths = torch.from_numpy(cells[:, 0].copy()).to(device)

    def put(self, slot: int, pixels: NDArray[np.uint8]) -> None:
        """Store this plane (h, w, C) uint8 of one image."""
        flat = torch.from_numpy(np.ascontiguousarray(pixels)).view(-1, self.channels)
        self.pixels[self._edges[slot] : self._edges[slot + 1]].copy_(flat)

    def resized(self, slots: Tensor, rectangles: Tensor, height: int, width: int) -> Tensor:
        """Cut rectangles (B, 4) int64 out of the images in slots (B,) int64 and resize them: (B, 300, 300, C) float32.

        height, width: those of the largest rectangle. They are numbers of the host, so that nothing here synchronises
        with the device.
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
    """The cells of a line that an antialiased bilinear resize to 300 pixels reads, and the weight of each cell.

    start, length: (B,) float32, the section of the line that is resized, in cells. most: a number of cells that no
    section exceeds. Returns cells (B, most) int64 and weights (B, 300, most) float32. Beyond the end of a section its
    last cell is repeated with weight 0. The weights form a triangle around each output pixel. Its half width is an
    output pixel, or a cell where cells are wider. It is cut off at the ends of the section.
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
        self._to_rgb = torch.from_numpy(RGB_OF_YCBCR.T.copy()).to(device)

    def put(self, slot: int, image: Tensor) -> None:
        """Store a decoded image (3, h, w) uint8 RGB. Threads may store different slots at the same time."""
        pixels = image.permute(1, 2, 0).numpy()
        if self.storage == "rgb":
            self.planes[0].put(slot, pixels)
            return
        luma, chroma = _yuv420(pixels)
        self.planes[0].put(slot, luma)
        self.planes[1].put(slot, chroma)

    def crops(self, slots: NDArray[np.int64], rectangles: NDArray[np.int64]) -> Tensor:
        """Cut rectangles (B, 4) int64 out of the images in slots (B,) int64 and resize them.

        A rectangle is left, top, right, bottom in pixels. Returns images (B, 300, 300, 3) uint8 on the device.
        """
        width, height = (rectangles[:, 2:] - rectangles[:, :2]).max(0).tolist()
        per_chunk = max(1, CHUNK_PIXELS // (width * height))
        where = torch.from_numpy(np.column_stack([slots, rectangles])).to(self.device, non_blocking=self.non_blocking)
        images = [self._chunk(part[:, 0], part[:, 1:], height, width) for part in where.split(per_chunk)]
        return torch.cat(images)

    def _chunk(self, slots: Tensor, rectangles: Tensor, height: int, width: int) -> Tensor:
        resized = torch.cat([plane.resized(slots, rectangles, height, width) for plane in self.planes], dim=3)
        if self.storage == "yuv420":
            resized[..., 1:] -= 128
            resized = resized @ self._to_rgb
        return resized.round().clamp(0, 255).to(torch.uint8)


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
