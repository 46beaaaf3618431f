"""How fast batches are copied to the device."""

from __future__ import annotations

import time

import torch

from ssd.compute.device import Abilities
from ssd.counts import IMAGE_SIZE

__all__ = ["IMAGE_BYTES", "copied_per_second"]

IMAGE_BYTES = IMAGE_SIZE * IMAGE_SIZE * 3
"""What a loader hands over of an image: uint8 pixels."""


def copied_per_second(abilities: Abilities, batch: int, seconds: float) -> float | None:
    """Bytes a second from the host to the device, of batches of so many images; from page-locked memory where it can.

    None where the device is the host: nothing is copied.
    """
    if abilities.is_host:
        return None
    pinned = abilities.pinned_memory
    images = torch.zeros(batch, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8, pin_memory=pinned)
    images.to(abilities.device, non_blocking=pinned)
    abilities.synchronize()
    copies, begun = 0, time.perf_counter()
    while copies == 0 or time.perf_counter() - begun < seconds:
        images.to(abilities.device, non_blocking=pinned)
        abilities.synchronize()
        copies += 1
    return copies * images.numel() / (time.perf_counter() - begun)
