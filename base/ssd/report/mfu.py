"""Model FLOP utilisation: the share of a device's peak arithmetic that training uses. Unknown peak, unknown share.

The peaks are a vendor's own numbers, in its folder; here is only how they are looked up and divided by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["GFLOP_PER_IMAGE", "Peak", "find_peak", "mfu"]

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
