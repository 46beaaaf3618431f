"""What NVML says of one GPU: power, temperature, memory, clock, use. What it does not support is None, never 0.

Needs the package nvidia-ml-py, which is optional: without it, or without a driver, `reader` gives None.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ssd.vendor import Check

__all__ = ["Nvml", "check", "reader"]

log = logging.getLogger(__name__)

PACKAGE = "nvidia-ml-py"


class Nvml:
    """Reads GPUs by torch's index. nvml: the module pynvml, initialised. uuid_of: index -> "GPU-8f5a..."."""

    def __init__(self, nvml: Any, uuid_of: Callable[[int], str]) -> None:
        self._nvml = nvml
        self._uuid_of = uuid_of
        self._handles: dict[int, Any] = {}

    def read(self, index: int) -> dict[str, float | None]:
        """Now; raises NVMLError where the GPU is lost or the driver fails."""
        nvml, gpu = self._nvml, self._handle(index)
        return {
            "power_w": self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            "temperature_c": self._ask(lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            "memory_mib": self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used / 2**20),
            "clock_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
            "use_percent": self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
        }

    def power_limit_w(self, index: int) -> float | None:
        """The limit in force, W; a throughput is not comparable without it. None where NVML fails, for any reason."""
        try:
            return float(self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle(index)) / 1000)
        except self._nvml.NVMLError as error:  # a description of the machine must not end the run
            log.warning("no power limit of GPU %d: %s", index, error)
            return None

    def driver_version(self) -> str:
        """The driver's version, as in "580.82.07"; older packages give bytes."""
        version = self._nvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)

    def _handle(self, index: int) -> Any:
        """By UUID: NVML counts all GPUs by their place on the bus, torch those that are visible, in its own order."""
        if index not in self._handles:
            self._handles[index] = self._nvml.nvmlDeviceGetHandleByUUID(self._uuid_of(index))
        return self._handles[index]

    def _ask(self, query: Callable[[], float]) -> float | None:
        try:
            return float(query())
        except self._nvml.NVMLError_NotSupported:
            return None


def initialised() -> Any:
    """The module pynvml, ready; None, with the reason logged, where it cannot be used."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # no package, no driver, or a driver of another version: each its own class
        log.info("no telemetry: %s: %s", type(error).__name__, error)
        return None
    return pynvml


def reader() -> Nvml | None:
    """The reader of this host's GPUs; None, with the reason logged, where there is none."""
    if not hasattr(torch.cuda.get_device_properties(0), "uuid"):
        log.info("no telemetry: torch %s does not tell a GPU's UUID, 2.5 does", torch.__version__)
        return None
    nvml = initialised()
    return nvml and Nvml(nvml, lambda index: f"GPU-{torch.cuda.get_device_properties(index).uuid}")


def check() -> Check:
    """Whether telemetry can be read. A run without is sound, so this is always ok; what is found tells."""
    missing = f"none ({PACKAGE} and a driver are needed): power and temperature will be unknown"
    return Check("NVML for telemetry", True, "found" if initialised() else missing)
