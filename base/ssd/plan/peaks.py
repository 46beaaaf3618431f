"""How much slower than an A100 a chip without published rows is, by the ratio of their peaks."""

from __future__ import annotations

from functools import cache

from ssd.config.folders import vendor_folders
from ssd.plan.model import FITTED_CHIP, Constants
from ssd.plan.rows import Device
from ssd.vendor import load_vendor

__all__ = ["half_precision_peak", "slower_by_peak"]


@cache
def half_precision_peak(chip: str) -> float | None:
    """The largest half-precision peak in TFLOP/s that any vendor's folder states for a chip; None where none does."""
    found = [
        peak.tflops.get("fp16", peak.tflops.get("bf16", 0.0))
        for name in vendor_folders()
        for peak in load_vendor(name).peaks()
        if chip.casefold() in peak.device.casefold()
    ]
    return max(found, default=0.0) or None


def slower_by_peak(constants: Constants, device: Device) -> float:
    """The factor for `Constants.step_ms`: 1 where rows tell, else the A100's peak over the chip's; 1 without a peak."""
    if device.chip == FITTED_CHIP or device.chip in constants.chips:
        return 1.0
    reference, peak = half_precision_peak(FITTED_CHIP), half_precision_peak(device.chip)
    return reference / peak if reference and peak else 1.0
