"""cpu: any machine without an accelerator. Base's defaults are the whole adaptation."""

from __future__ import annotations

import ssd.vendor

__all__ = ["Vendor"]


class Vendor(ssd.vendor.Vendor):
    """Trains on the CPU with gloo between processes."""
