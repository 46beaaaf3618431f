"""The suite that holds a vendor's overrides to the reference ops, by whatever means this machine has, and its device to
the CPU.

    python -m ssd vendors check NAME [--config C] [--op OP] [--means MEANS] [--case NAME] [--seed N] [--quick] [--json]

Every row says what was compared, by what means it ran (on the hardware, by an emulator, as a host build, compiled only,
or not at all), how far the worst output was off, and what was allowed. A vendor's port is as good as this table; what
the table calls "not run" is not known.
"""

from __future__ import annotations

from ssd.conformance.device import device_checks
from ssd.conformance.report import check_command
from ssd.conformance.rows import COMPILED_ONLY, HARDWARE, Row
from ssd.conformance.run import run_conformance

__all__ = ["COMPILED_ONLY", "HARDWARE", "Row", "check_command", "device_checks", "run_conformance"]
