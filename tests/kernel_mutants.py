"""Breaks the kernels of both languages, one place at a time, and asks the conformance suite whether it notices.

    make kernel-mutants

tests/kernel_mutants.toml has the mutants: what stands in a file of the kernels, and what it becomes. Each is applied to
a copy of the sources. Then the cases of `vendors check` are tried on its op in their order, until one turns red: by
Triton's interpreter, or by a host build of 32 lanes. The exit code is 1 where a mutant is not caught.
`--page` puts the rows of these mutants into docs/kernel-mutants.md, below the heading of the list.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from kernel_mutants_list import (
    NOT_CAUGHT,
    PAGE,
    Caught,
    Mutant,
    broken,
    mutants,
    named,
    page_rows,
    row_of,
    versions,
    write_page,
)

from ssd.conformance.run import Plan, Row, run_here
from ssd.vendor import Override, load_vendor
from ssd.vendor.csrc.build import build, gxx, open_library
from ssd.vendor.csrc.ops import ops_of
from ssd.vendor.csrc.overrides import OPS, ORDER_SEED
from ssd.vendor.triton.overrides import EMULATOR, triton_overrides

__all__ = ["require_kernels_fault", "said", "tried"]

SECONDS = 600
"""Longest that a mutant may take: `vendors check` calls more a failure too."""
VENDOR = "nvidia"
"""Offers both languages; its configs give the largest batch."""


def override_of(mutant: Mutant, folder: Path) -> tuple[Override, str]:
    """The broken op as an override, and the means to run it. It changes what this process imports."""
    copy = broken(mutant, folder)
    if mutant.language == "Triton":
        import ssd.vendor.triton

        ssd.vendor.triton.__path__ = [str(copy)]
        for name in [name for name in sys.modules if name.startswith("ssd.vendor.triton.")]:
            del sys.modules[name]
        return next(o for o in triton_overrides("mutant", (), lambda: False) if o.op == mutant.op), EMULATOR
    for op in set(OPS) - {mutant.op}:  # the others take most of the compiler's time
        (copy / f"{op}.cu").unlink()
    toolchain = gxx(32, ("-O1",), checked=True)
    assert toolchain is not None
    path = build(toolchain, folder, copy)
    open_library(path).ssd_host_order(ORDER_SEED)
    means = "host build, warp 32"
    return Override(
        mutant.op, "mutant", mutant.file, lambda _: getattr(ops_of(path), mutant.op), lambda: [means]
    ), means


def first_red(mutant: Mutant, folder: Path, seed: int) -> Caught:
    """Try the cases in their order; ValueError where one fails for another reason than what the kernel did."""
    torch.set_num_threads(1)
    vendor, plan = load_vendor(VENDOR), Plan(seed)
    override, means = override_of(mutant, folder)
    for case, _ in plan.tries(mutant.op, 256, hardware=False):
        red = next(
            (row for row in run_here(vendor, override, means, replace(plan, case=case.name)) if not row.ok), None
        )
        if red is not None:
            require_kernels_fault(red)
            return Caught(red.case, red.means, said(red))
    return Caught()


def require_kernels_fault(row: Row) -> None:
    """ValueError for a row that is red because the mutant is no program: no result of the kernel was looked at."""
    error = re.match(r"(\w+Error): ", row.note)
    if row.case == "all" or (
        error and error[1] not in ("AccessError", "MachineError") and "AccessError" not in row.note
    ):
        raise ValueError(f"the mutant does not run: {row.note}")


def said(row: Row) -> str:
    """What the row says, short: the output that is off, or the words of what saw the fault."""
    if row.error is not None:
        return f"{row.note} is off by {row.error:.2g}, allowed {row.tolerance:.2g}"
    words = re.sub(r".*failed: error \d+, |.*AccessError\W+", "", row.note, flags=re.DOTALL)
    return " ".join(words.split()).strip("')")[:160]


def child(mutant: Mutant, seed: int, answer: Connection) -> None:
    """Body of the process of one mutant."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            answer.send(first_red(mutant, Path(folder), seed))
        except Exception as error:
            answer.send(f"{type(error).__name__}: {error}")


def tried(mutant: Mutant, seed: int = 0) -> Caught:
    """What catches a mutant. A process of its own may crash or hang. ValueError where the mutant cannot be tried."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(mutant, seed, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(SECONDS):
            return Caught("all", "its own process", f"not finished after {SECONDS} s")
        found = receiver.recv()
    except EOFError:
        process.join()
        return Caught("all", "its own process", f"ended with exit code {process.exitcode}")
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        raise ValueError(f"{mutant.language} {mutant.kernel}, {mutant.kind}, {mutant.what}: {found}")
    return found


def main() -> int:
    """Print the list. 0 where every mutant is caught."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--only", default="", help="mutants whose language, op, kernel, kind or file hold this text")
    flags.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    flags.add_argument("--seed", type=int, default=0, help="of the random cases")
    flags.add_argument("--missing", action="store_true", help="only mutants that docs/kernel-mutants.md has no row of")
    flags.add_argument("--page", action="store_true", help="write the list to docs/kernel-mutants.md")
    asked = flags.parse_args()
    os.environ["TRITON_INTERPRET"] = "1"  # settled when Triton is imported, here or in a child
    there = page_rows(PAGE.read_text(encoding="utf-8")) if asked.missing else {}
    chosen = [m for m in mutants() if asked.only in f"{m.language} {m.op} {m.kernel} {m.kind} {m.file}"]
    chosen = [m for m in chosen if named(m) not in there]
    rows = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for mutant, by in zip(chosen, pool.map(lambda mutant: tried(mutant, asked.seed), chosen), strict=True):
            rows.append(row_of(mutant, by))
            print(rows[-1], flush=True)
            if asked.page:
                write_page(rows[-1:])
    missed = sum(NOT_CAUGHT in row for row in rows)
    print(f"{len(rows) - missed} of {len(rows)} mutants are caught. {versions()}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
