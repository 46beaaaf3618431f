"""How much slower than an A100 a chip without published rows computes an image: a roofline of two terms.

    image = FLOPs / peak arithmetic + the rest of the A100's time x (A100's memory bandwidth / the chip's)

The first term is what an image takes at the peak. What an A100 takes beyond it is counted as memory traffic.
"""

from __future__ import annotations

import re
from functools import cache

from ssd.config.folders import vendor_folders
from ssd.plan.constants import stated
from ssd.plan.model import FITTED_CHIP, Constants
from ssd.plan.rows import Device
from ssd.vendor import load_vendor

__all__ = ["half_precision_peak", "slower_by_roofline"]


@cache
def half_precision_peak(chip: str) -> float | None:
    """The largest half-precision peak in TFLOP/s that any vendor's folder states for a chip; None where none does."""
    found = [
        peak.tflops.get("fp16", peak.tflops.get("bf16", 0.0))
        for name in vendor_folders()
        for peak in load_vendor(name).peaks()
        if re.search(rf"(?<![\w-]){re.escape(chip)}(?!\d)", peak.device, re.IGNORECASE)  # V100 is no BI-V100
    ]
    return max(found, default=0.0) or None


def slower_by_roofline(constants: Constants, device: Device) -> float:
    """The factor for `Constants.step_ms`: 1 where rows tell, and where the chip's peak is unknown.

    A chip whose memory bandwidth is unknown takes the ratio of the peaks for both terms.
    """
    if device.chip == FITTED_CHIP or device.chip in constants.chips:
        return 1.0
    reference, peak = half_precision_peak(FITTED_CHIP), half_precision_peak(device.chip)
    if not reference or not peak:
        return 1.0
    arithmetic_ms = stated("image_gflop") / reference  # GFLOP / (TFLOP/s) = ms
    rest_ms = max(constants.image - arithmetic_ms, 0.0)
    known = stated(f"memory_{FITTED_CHIP}"), stated(f"memory_{device.chip}", 0.0)
    by_memory = known[0] / known[1] if known[1] else reference / peak
    return (arithmetic_ms * reference / peak + rest_ms * by_memory) / constants.image
