"""nvidia: GPUs with CUDA and nccl."""

from __future__ import annotations

from collections.abc import Sequence

import ssd.vendor
import torch
from ssd.vendor import SMOKE_RUN, Check, Override

from . import kernels

__all__ = ["Vendor"]


class Vendor(ssd.vendor.Vendor):
    """What differs from base: the device, the kernels, and that torch must be built for CUDA."""

    device_type = "cuda"
    backend = "nccl"

    def overrides(self) -> Sequence[Override]:
        """The Triton kernels: each op's `<op>_op = "triton"`."""
        return kernels.overrides()

    def torch_checks(self) -> list[Check]:
        """Builds of torch for the CPU or for another maker's GPUs have no CUDA version."""
        found = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
        remedy = f"install a build of torch for CUDA, or {SMOKE_RUN}"
        return [Check("torch built for CUDA", torch.version.cuda is not None, found, remedy)]
