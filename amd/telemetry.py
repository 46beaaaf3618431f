"""What amdsmi, an optional package of ROCm, says of one GPU. What it does not tell is None, never 0."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

__all__ = ["read"]


def read(index: int) -> dict[str, float | None]:
    """Now, by torch's index of the GPU; {} where amdsmi cannot be used."""
    if (smi := _initialised()) is None:
        return {}
    gpu = smi.amdsmi_get_processor_handle_from_bdf(_address(index))
    hot = smi.AmdSmiTemperatureType.JUNCTION, smi.AmdSmiTemperatureMetric.CURRENT
    return {
        "power_w": _number(smi, lambda: smi.amdsmi_get_power_info(gpu)["current_socket_power"]),
        "temperature_c": _number(smi, lambda: smi.amdsmi_get_temp_metric(gpu, *hot)),
        "memory_mib": _number(smi, lambda: smi.amdsmi_get_gpu_vram_usage(gpu)["vram_used"]),
        "clock_mhz": _number(smi, lambda: smi.amdsmi_get_clock_info(gpu, smi.AmdSmiClkType.GFX)["clk"]),
        "use_percent": _number(smi, lambda: smi.amdsmi_get_gpu_activity(gpu)["gfx_activity"]),
    }


def _address(index: int) -> str:
    """The GPU's place on the bus, "domain:bus:device.function": amdsmi counts all GPUs, torch the visible ones."""
    gpu: Any = torch.cuda.get_device_properties(index)
    return f"{gpu.pci_domain_id:04x}:{gpu.pci_bus_id:02x}:{gpu.pci_device_id:02x}.0"


def _number(smi: Any, query: Callable[[], Any]) -> float | None:
    """The value as a number. amdsmi raises, or answers "N/A", for what a GPU does not tell."""
    try:
        return float(query())
    except (smi.AmdSmiLibraryException, KeyError, TypeError, ValueError):
        return None


@cache
def _initialised() -> Any:
    """The module amdsmi, ready; None, with the reason logged, where it cannot be used."""
    try:
        import amdsmi

        amdsmi.amdsmi_init()
    except Exception as error:  # no package, no driver, no library: each its own class
        logging.getLogger(__name__).info("no telemetry: %s: %s", type(error).__name__, error)
        return None
    return amdsmi
