"""Each override of a vendor against the reference op, on the vendor's device, in turn: the ratio of the medians.

    python bench/ops.py --name nvidia [--batch 32 128] [--op loss] [--quick]

The inputs are those that `vendors check` times: an ordinary batch in bfloat16; the loss with its backward pass. Where
this machine lacks the vendor's device there is nothing to time, and it says so: a stand-in's time is nobody's.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from measure import alternate, parser, spread, synchronize, write_row

from ssd.conformance.cases import timed_case
from ssd.conformance.compare import outputs, to_device
from ssd.conformance.run import HARDWARE
from ssd.ops import OP_NAMES, REFERENCE
from ssd.vendor import Override, Vendor, load_vendor


def main(argv: Sequence[str] | None = None) -> int:
    """One row an override and batch. 0, also where there is nothing to time."""
    flags = parser(__doc__)
    flags.add_argument("--name", default="nvidia", help="vendor")
    flags.add_argument("--op", action="append", choices=OP_NAMES, help="only this op; may be given again")
    flags.add_argument("--batch", type=int, nargs="+", default=[32, 128], help="images of a batch")
    asked = flags.parse_args(argv)
    vendor = load_vendor(asked.name)
    if not vendor.overrides():
        print(f"vendor {vendor.name} overrides no op: nothing to time")
    for override in vendor.overrides():
        if asked.op and override.op not in asked.op:
            continue
        has = list(override.means())
        if HARDWARE not in has:
            print(
                f"{override.op} {override.name}: not timed: this machine lacks the hardware of {vendor.name} "
                f"({vendor.device_type}); it has: {', '.join(has) or 'no means to run it'}"
            )
            continue
        for batch in [1] if asked.quick else asked.batch:
            row = measure(vendor, override, batch, rounds=2 if asked.quick else 30)
            write_row("ops", asked, vendor, row)
    return 0


def measure(vendor: Vendor, override: Override, batch: int, rounds: int) -> dict[str, object]:
    """Median seconds of override and reference on one batch, and how many times faster the override is."""
    device = torch.device(vendor.device_type)
    case = timed_case(override.op, batch)
    inputs = to_device(case.make(), device)

    def call(function: Callable[..., Any]) -> None:
        outputs(case, function, inputs)
        synchronize(device)

    functions = {"override": override.load(HARDWARE), "reference": getattr(REFERENCE, override.op)}
    seconds = alternate({name: partial(call, function) for name, function in functions.items()}, rounds, warm_up=3)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "vendor": vendor.name,
        "op": override.op,
        "override": override.name,
        "batch": batch,
        "override_ms": round(median["override"] * 1e3, 4),
        "reference_ms": round(median["reference"] * 1e3, 4),
        "times_faster": round(median["reference"] / median["override"], 3),
        "spread": spread(seconds),
        "rounds": rounds,
    }


if __name__ == "__main__":
    sys.exit(main())
