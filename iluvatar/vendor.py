"""iluvatar: BI-V100 and its successors with CoreX, which speaks torch's CUDA API and calls its collectives nccl."""

from __future__ import annotations

import ssd.vendor
import torch
from ssd.vendor import SMOKE_RUN, Check

__all__ = ["Vendor"]


class Vendor(ssd.vendor.Vendor):
    """What differs from base: the device, and that torch must be the one built for CoreX."""

    device_type = "cuda"
    backend = "nccl"

    def torch_checks(self) -> list[Check]:
        """The version of CoreX's torch ends in +corex. The CUDA version it prints says nothing: it is 10.2 in each release.

        Installing dependencies can replace it by the public torch, which sees no BI-V100.
        """
        remedy = f"install CoreX's own torch wheel again (requirements.txt accepts it), or {SMOKE_RUN}"
        return [Check("torch built for CoreX", "+corex" in torch.__version__, f"torch {torch.__version__}", remedy)]
