"""The suite that holds every override of a vendor to the reference ops, by whatever means this machine has.

    python -m ssd vendors check NAME [--config C] [--op OP] [--means MEANS] [--case NAME] [--seed N] [--quick] [--json]

Every row says what was compared, by what means it ran (on the hardware, by an emulator, as a host build, compiled only,
or not at all), how far the worst output was off, and what was allowed. A vendor's port is as good as this table; what
the table calls "not run" is not known.
"""

from __future__ import annotations

from ssd.conformance.report import check_command
from ssd.conformance.run import COMPILED_ONLY, HARDWARE, Row, run_conformance

__all__ = ["COMPILED_ONLY", "HARDWARE", "Row", "check_command", "run_conformance"]
