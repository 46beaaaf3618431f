"""amd: Instinct GPUs with ROCm, whose torch calls its devices "cuda" and its collectives "nccl"."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import ssd.vendor
from ssd.report.mfu import Peak
from ssd.vendor import SMOKE_RUN, Check, Override
from ssd.vendor.triton.overrides import triton_overrides

from . import telemetry
from .peaks import PEAKS

__all__ = ["Vendor"]


class Vendor(ssd.vendor.Vendor):
    """What differs from base: that torch must be built for ROCm, the Triton kernels, and what amdsmi reads."""

    device_type = "cuda"
    backend = "nccl"

    def torch_checks(self) -> list[Check]:
        """Only torch.version.hip tells a build for ROCm from one for CUDA."""
        found = f"torch {torch.__version__}, HIP {torch.version.hip or 'none'}"
        remedy = f"install a build of torch for ROCm, or {SMOKE_RUN}"
        return [Check("torch built for ROCm", torch.version.hip is not None, found, remedy)]

    def overrides(self) -> Sequence[Override]:
        """The ops by `<op>_op = "triton"`; without a GPU compiled for MI300X (gfx942) and MI355X (gfx950)."""
        targets = "gfx942", "gfx950"
        return triton_overrides("triton", targets, lambda: bool(torch.version.hip) and torch.cuda.is_available())

    def peaks(self) -> Sequence[Peak]:
        """Peak arithmetic, for the share of it that a run used."""
        return PEAKS

    def telemetry(self, device: torch.device) -> dict[str, float | None]:
        """Power, temperature, memory, clock and use by amdsmi; nothing where it is missing."""
        return telemetry.read(device.index or 0) if device.type == self.device_type else {}
