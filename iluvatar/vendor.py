"""iluvatar: BI-V100 and its successors with CoreX, which speaks torch's CUDA API and calls its collectives nccl."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

import ssd.vendor
from ssd.report.mfu import Peak
from ssd.vendor import SMOKE_RUN, Check, Override
from ssd.vendor.triton.overrides import triton_overrides

from . import build, telemetry
from .peaks import PEAKS

__all__ = ["Vendor"]


class Vendor(ssd.vendor.Vendor):
    """What differs from base: the device, and that torch must be the one built for CoreX."""

    device_type = "cuda"
    backend = "nccl"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self._ixsmi: telemetry.Ixsmi | None = None
        self._sought_ixsmi = False

    def torch_checks(self) -> list[Check]:
        """The version of CoreX's torch ends in +corex. The CUDA version it prints is always 10.2.

        Installing dependencies can replace it by the public torch, which sees no BI-V100.
        """
        remedy = f"install CoreX's own torch wheel again (requirements.txt accepts it), or {SMOKE_RUN}"
        return [Check("torch built for CoreX", build.is_corex_build(), f"torch {torch.__version__}", remedy)]

    def overrides(self) -> Sequence[Override]:
        """All ops but `crop` by "cuda" (base/csrc), and all by "triton" where CoreX's torch has Triton (4.4 does).

        CoreX's Triton has a target of its own, so "compiled only" has none to compile for.
        """
        return [
            *build.overrides(lambda: self.cache_dir),
            *triton_overrides("triton", (), build.has_accelerator),
        ]

    def build(self, cache_dir: Path) -> list[str]:
        """Compile the kernels with CoreX's compiler."""
        return build.build_kernels(cache_dir)

    def peaks(self) -> Sequence[Peak]:
        """Peak arithmetic, for the share of it that a run used."""
        return PEAKS

    def telemetry(self, device: torch.device) -> dict[str, float | None]:
        """Power, temperature, memory, clock and use by ixsmi; nothing where there is no ixsmi."""
        if not self._sought_ixsmi:
            self._ixsmi = telemetry.reader(build.corex_root(), os.environ.get("CUDA_VISIBLE_DEVICES"))
            self._sought_ixsmi = True
        return self._ixsmi.read(device.index or 0) if self._ixsmi else {}
