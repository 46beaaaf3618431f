"""nvidia: GPUs with CUDA and nccl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

import ssd.vendor
from ssd.vendor import SMOKE_RUN, Check, Override

from . import kernels, telemetry

__all__ = ["Vendor"]


class Vendor(ssd.vendor.Vendor):
    """What differs from base: the device, the kernels, and that torch must be built for CUDA."""

    device_type = "cuda"
    backend = "nccl"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self._nvml: telemetry.Nvml | None = None
        self._sought_nvml = False

    def telemetry(self, device: torch.device) -> dict[str, float | None]:
        """Power, temperature, memory, clock and use by NVML; nothing where nvidia-ml-py or a driver is missing."""
        if not self._sought_nvml:
            self._nvml, self._sought_nvml = telemetry.reader(), True
        return self._nvml.read(device.index or 0) if self._nvml else {}

    def overrides(self) -> Sequence[Override]:
        """The Triton kernels: each op's `<op>_op = "triton"`."""
        return kernels.overrides()

    def torch_checks(self) -> list[Check]:
        """Builds of torch for the CPU or for another maker's GPUs have no CUDA version."""
        found = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
        remedy = f"install a build of torch for CUDA, or {SMOKE_RUN}"
        return [Check("torch built for CUDA", torch.version.cuda is not None, found, remedy)]
