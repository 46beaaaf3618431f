"""A vendor's device itself, held to the CPU: torch's ops on it, not the vendor's. For `check` and `vendors check`.

The reference ops run on the device, case by case, and then the parts of `ssd.conformance.whole`: in float32, and in the
precision and the layout that a config asks for. Whoever's device sorts or scatters wrongly learns it here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial

import torch

from ssd.compute.device import Abilities, device_count
from ssd.compute.precision import DTYPES
from ssd.config import Config
from ssd.conformance.case import Case
from ssd.conformance.cases import cases_of
from ssd.conformance.compare import Mismatch, compare
from ssd.conformance.rows import HARDWARE, Row, failed, in_words
from ssd.conformance.whole import PARTS, Part, Side, worst
from ssd.errors import SsdError
from ssd.ops import OP_NAMES, REFERENCE
from ssd.vendor import Check, Vendor, select_ops

__all__ = ["device_checks", "device_rows", "has_device"]

OURS = "reference"
"""What a row calls the code that ran: base's own, by torch's ops."""


def has_device(vendor: Vendor, config: Config) -> bool:
    """Whether there is a device to hold to the CPU: another than the CPU, that torch sees here."""
    kind = vendor.device_of(config)
    return kind != "cpu" and device_count(kind) > 0


def device_rows(
    vendor: Vendor, config: Config, *, quick: bool = False, ops: Collection[str] = (), case: str | None = None
) -> list[Row]:
    """Rows of the device: what the config's keys ask of it, the reference ops, and the parts of `whole`.

    quick: a few cases an op. ops: only these ops and parts; all where none is named. case: only the case of this name.
    """
    device = vendor.set_up(config, 0)
    checks = vendor.key_checks(config, device)
    rows = [Row("device", OURS, check.what, HARDWARE, check.ok, note=check.found) for check in checks]
    if not all(check.ok for check in checks):
        return rows
    rows = [] if ops or case else rows
    tries = [*_op_tries(config, device, quick), *_part_tries(vendor, config, device)]
    chosen = [one for one in tries if (not ops or one[0] in ops) and case in (None, one[1])]
    return rows + [_row(op, name, look) for op, name, look in chosen]


Look = Callable[[], tuple[str, float, float]]
"""Gives the worst output, its error, and what is allowed."""


def _op_tries(config: Config, device: torch.device, quick: bool) -> Iterator[tuple[str, str, Look]]:
    precisions = {torch.float32, torch.uint8, DTYPES[config.precision]}
    for op in OP_NAMES:
        for case in cases_of(op):
            asked = case.dtype in precisions and (config.nhwc or not case.options.get("channels_last"))
            if asked and (case.quick or not quick):
                yield op, case.name, partial(_compared, case, device)


def _compared(case: Case, device: torch.device) -> tuple[str, float, float]:
    outcome = compare(case, getattr(REFERENCE, case.op), device)
    return outcome.output, outcome.error, outcome.tolerance


def _part_tries(vendor: Vendor, config: Config, device: torch.device) -> Iterator[tuple[str, str, Look]]:
    for precision in dict.fromkeys(("fp32", config.precision)):
        side = Side(vendor, config.model_copy(update={"precision": precision}), device)
        for op, parts in PARTS.items():
            for name, part in parts.items():
                yield op, f"{name}, {precision}", partial(worst, part, side)


def _row(op: str, name: str, look: Look) -> Row:
    try:
        output, off, allowed = look()
    except Mismatch as mismatch:
        return failed(op, OURS, HARDWARE, str(mismatch), name)
    except Exception as error:  # each maker's library raises its own
        return failed(op, OURS, HARDWARE, in_words(error), name)
    return Row(op, OURS, name, HARDWARE, off <= allowed, off, allowed, note=output)


def device_checks(vendor: Vendor, config: Config) -> list[Check]:
    """What `check` says of the device of a run: what its keys ask, then a narrow step and evaluation batch, in seconds.

    The run's own kernels are used. Nothing where the run is on the CPU, or where there is no device, which is said
    elsewhere.
    """
    if not has_device(vendor, config):
        return []
    device = vendor.set_up(config, 0)
    abilities = vendor.abilities(device)
    checks = [*vendor.key_checks(config, device)]
    if not all(check.ok for check in checks):
        return checks
    checks.append(_measured(abilities))
    side = Side(vendor, config, device, select_ops(vendor, config)[0])
    return checks + [
        _part_check(op, name, part, side) for op in ("step", "evaluation") for name, part in PARTS[op].items()
    ]


def _measured(abilities: Abilities) -> Check:
    """What the device lacks, each with a default; and an event where it has them."""
    lacks = ", ".join(abilities.lacking())
    return Check(f"abilities of {abilities.device}", True, f"does without {lacks}" if lacks else "has all that helps")


def _part_check(op: str, name: str, part: Part, side: Side) -> Check:
    what = f"{name} on {side.device}, narrow, {side.config.precision}"
    remedy = f"python -m ssd vendors check {side.vendor.name} --config {side.config.config} says which part is wrong"
    try:
        output, off, allowed = worst(part, side)
    except SsdError:
        raise
    except Exception as error:  # each maker's library raises its own
        return Check(f"{op}: {what}", False, in_words(error), remedy)
    found = f"{output} differs from the CPU's by {off:.1e} of the largest, {allowed:g} is allowed"
    return Check(f"{op}: {what}", off <= allowed, found, remedy)
