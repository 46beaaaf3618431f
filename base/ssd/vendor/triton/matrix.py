"""The compile matrix: every program of the kernels for every target, and what each needs of its GPU.

    python -m ssd.vendor.triton.matrix [--output PAGE] [--beside PAGE] [TARGET ...]

No GPU is needed. Triton keeps what it has compiled under `TRITON_CACHE_DIR`, by a hash of the kernel's source, the
target, the options and Triton itself, so that a second matrix compiles only what a change touched.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeAlias

import triton

from ssd.ops import OP_NAMES
from ssd.vendor.triton.build import Usage, compile_for, usage, variants
from ssd.vendor.triton.sources import KERNELS, code_digest
from ssd.vendor.triton.targets import TARGETS

__all__ = ["Matrix", "cells", "main", "measure", "measure_one", "page", "read"]

Matrix: TypeAlias = "dict[tuple[str, str], dict[str, Usage]]"
"""What each program, by op and name, needs on each target."""

PAGE = """# What the Triton kernels need of each GPU, compiled by Triton {version}

**Compiled, never run on hardware.** `make kernel-table`, and `make kernel-table-floor` for an older Triton, compile
every program of `base/ssd/vendor/triton` for targets of its `targets.py` and write this page. That needs no GPU. A test
compiles one target of each back end again and compares the cells, under the same version of Triton only: another
version allots registers in another way.
Compiled from the kernels of today (sources {sources}). {beside}

A cell is *registers a thread / bytes of stack a thread / bytes of shared memory a block*. Stack lies in memory: a
kernel has one where values did not fit into registers (spills). Registers of gfx targets are *vector registers a lane +
scalar registers a wave*.

"""


def measure(targets: Sequence[str], ops: Sequence[str] = OP_NAMES, processes: int | None = None) -> Matrix:
    """Compile every program of `ops` for `targets`, names of TARGETS, in `processes` processes, by default one a core.

    RuntimeError names the program and the target that a compiler refused.
    """
    jobs = [(op, name, target) for op in ops for name in variants(op) for target in targets]
    found: Matrix = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or len(os.sched_getaffinity(0)), context) as pool:
        for (op, name, target), needs in zip(jobs, pool.map(measure_one, jobs), strict=True):
            found.setdefault((op, name), {})[target] = needs
    return found


def measure_one(job: tuple[str, str, str]) -> Usage:
    """What one program needs on one target; a job is op, program, target. RuntimeError where a compiler refuses it."""
    op, name, target = job
    try:
        return usage(compile_for(_variants(op)[name], TARGETS[target]), TARGETS[target])
    except Exception as error:  # a compiler's errors have no common class, and some cannot be sent to another process
        raise RuntimeError(f"{op}, {name}, for {target}: {type(error).__name__}: {error}") from None


_variants = functools.cache(variants)


def page(matrix: Matrix, beside: str = "") -> str:
    """The matrix as a page of docs: a line for each program, a column for each target.

    beside: a page of another version of Triton. Cells that differ there get the other version's in brackets.
    """
    other, theirs = read(beside) if beside else ("", {})
    targets = list(next(iter(matrix.values())))
    head = [f"{name}<br>{TARGETS[name].stands_for}" for name in targets]
    lines = [_line(["op", "program", *head]), _line(["---"] * (2 + len(targets)))]
    for key, row in cells(matrix).items():
        known = theirs.get(key, {})
        changed = (
            f"{cell} ({known[target]})" if known.get(target, cell) != cell else cell for target, cell in row.items()
        )
        lines.append(_line([*key, *changed]))
    said = f"In brackets: with Triton {other}." if other else ""
    top = PAGE.format(version=triton.__version__, sources=code_digest(KERNELS), beside=said)
    return top.replace(" \n", "\n") + "\n".join(lines) + "\n"


def read(text: str) -> tuple[str, dict[tuple[str, str], dict[str, str]]]:
    """The version of Triton that a page of this kind names, and its cells by program and target."""
    version = text.splitlines()[0].split()[-1]
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|")
    targets = [cell.split("<br>")[0] for cell in head[2:]]
    return version, {(row[0], row[1]): dict(zip(targets, row[2:], strict=True)) for row in rows}


def cells(matrix: Matrix) -> Mapping[tuple[str, str], Mapping[str, str]]:
    """Cells by program and target, as a page shows them: what `read` gives of its page."""
    return {key: {target: _cell(one) for target, one in needs.items()} for key, needs in matrix.items()}


def _cell(needs: Usage) -> str:
    scalar = "" if needs.scalar_registers is None else f"+{needs.scalar_registers}"
    return f"{needs.registers}{scalar} / {needs.stack} / {needs.shared}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str]) -> int:
    """Compile the matrix and write its page, to a file or to standard output. Nothing is written if a compile fails."""
    parser = argparse.ArgumentParser(prog="python -m ssd.vendor.triton.matrix", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--output", type=Path, help="file of the page")
    parser.add_argument("--beside", type=Path, help="page of another version of Triton to compare with")
    asked = parser.parse_args(argv)
    for target in asked.targets:
        if target not in TARGETS:
            parser.error(f"no target is called {target!r}. There are: {', '.join(TARGETS)}.")
    beside = asked.beside.read_text(encoding="utf-8") if asked.beside else ""
    text = page(measure(asked.targets or list(TARGETS)), beside)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
