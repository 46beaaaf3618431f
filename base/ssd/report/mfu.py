"""Model FLOP utilisation: the share of a device's peak arithmetic that training uses. Unknown peak, unknown share.

The peaks are a vendor's own numbers, in its folder; here is only how they are looked up and divided by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

__all__ = ["GFLOP_PER_IMAGE", "Peak", "find_peak", "mfu", "share_of_peak"]

GFLOP_PER_IMAGE = 94.7
"""Convolutions of one training image at width 1, forward and backward, a multiply-add counted as two."""


@dataclass(frozen=True)
class Peak:
    """What a device can do at most. device: a pattern that the whole of torch's name for it matches.

    tflops: dense, by arithmetic: "bf16", "fp16", "tf32", "fp32". source: who says so.
    """

    device: str
    tflops: Mapping[str, float]
    source: str


def find_peak(peaks: Iterable[Peak], device: str, arithmetic: str) -> tuple[float, str] | None:
    """Peak TFLOP/s of a device and where that stands; None where no one says.

    arithmetic: what the convolutions run in. torch.float32 is "tf32" where cuDNN may use it, torch's default
    (torch.backends.cudnn.allow_tf32), and the device has it.
    """
    for peak in peaks:
        if re.fullmatch(peak.device, device) and arithmetic in peak.tflops:
            return peak.tflops[arithmetic], f"{peak.tflops[arithmetic]:g} TFLOP/s {arithmetic}, {peak.source}"
    return None


def mfu(images_per_second: float, peak_tflops: float | None) -> float | None:
    """Share of the peak, 0..1, at images/s of one device; None without a peak."""
    if peak_tflops is None:
        return None
    return images_per_second * GFLOP_PER_IMAGE / (peak_tflops * 1000)


def share_of_peak(
    peaks: Iterable[Peak], device: str, precision: str, images_per_second: float, width: float = 1.0
) -> tuple[float | None, str]:
    """Share of a device's peak at images/s of that one device, and whose number the peak is.

    None and "" where nobody says what the device can do, at another width than 1, whose operations are not counted, and
    for a run too short to have a rate. device: its name. precision: "fp32", "bf16" or "fp16".
    """
    if width != 1 or not images_per_second:
        return None, ""
    kinds = ["tf32", "fp32"] if precision == "fp32" and torch.backends.cudnn.allow_tf32 else [precision]
    found = next((peak for kind in kinds if (peak := find_peak(peaks, device, kind))), None)
    return (mfu(images_per_second, found[0]), found[1]) if found else (None, "")
