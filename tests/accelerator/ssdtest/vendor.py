"""ssdtest: the tests' accelerator, as a maker's own repository would hold it."""

from __future__ import annotations

import ssd.vendor

from . import device  # registers torch's device type `ssdtest`

__all__ = ["Vendor", "device"]


class Vendor(ssd.vendor.Vendor):
    """What the README's ten lines state."""

    device_type = "ssdtest"
    backend = "gloo"
