"""One override by one means, in a process of its own.

    python -m ssd.conformance VENDOR OP OVERRIDE MEANS [--quick] [--seed N] [--case NAME]

Started by `ssd.conformance.run`; writes its rows as one line of JSON, the last of its output.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from ssd.conformance.run import FORKS, Plan, run_here
from ssd.vendor import load_vendor


def main(argv: Sequence[str]) -> int:
    """Run and write the rows; errors end the process with their traceback, which the parent puts into a row."""
    parser = argparse.ArgumentParser(prog="python -m ssd.conformance", description=__doc__)
    for name in ("vendor", "op", "override", "means"):
        parser.add_argument(name)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    vendor = load_vendor(asked.vendor)
    [override] = [o for o in vendor.overrides() if (o.op, o.name) == (asked.op, asked.override)]
    rows = run_here(vendor, override, asked.means, Plan(asked.seed, asked.quick, asked.case), FORKS)
    sys.stdout.write("\n" + json.dumps([asdict(row) for row in rows]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
