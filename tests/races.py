"""The Triton kernels and mutants of them on Triton's own IR, by ttsem: `make test-races`, or

    python tests/races.py [--page FILE] [--op OP] [--seed N]

Every case of `vendors check` runs by the means "ir, races checked". Then mutants of the kernels run: each has one race,
one access outside of a tensor, or one read of memory that nobody wrote. The page holds what was found. The exit code is
1 where our own kernels fail a case, or where a mutant is not caught.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "base" / "ssd" / "vendor" / "triton"
PAGE = ROOT / "docs" / "kernel_races.md"
sys.path.insert(0, str(ROOT / "base"))


@dataclass(frozen=True)
class Mutant:
    """One change of a kernel. kind: what is wrong with it. said: words of the row that catches it."""

    op: str
    kind: str
    before: str
    after: str
    said: str


RACE, OUTSIDE, UNWRITTEN = "race", "outside of a tensor", "memory that nobody wrote"
MUTANTS = (
    Mutant("augment", RACE, "sums + image * tl.num_programs(0) + tl.program_id(0), total",
           "sums + tl.program_id(0), total", "a race: program instances"),
    Mutant("augment", OUTSIDE, "mask=i < BLOCKS", "mask=i <= BLOCKS", "a load outside of every tensor"),
    Mutant("augment", UNWRITTEN, "if CHANNELS == 4:", "if CHANNELS == 5:", "images is not finite"),
    Mutant("encode", RACE, "tl.store(best + at, tl.min(", "tl.store(best + at // 2, tl.min(",
           "a race: program instances"),
    Mutant("encode", OUTSIDE, "inside = d < D\n            l2", "inside = d < D + 1\n            l2",
           "a load outside of every tensor"),
    Mutant("encode", UNWRITTEN, "tl.store(row + 3 * D,", "tl.store(row + 2 * D,", "offsets is not finite"),
    Mutant("loss", RACE, "tl.store(losses + image,", "tl.store(losses + image // 2,", "a race: program instances"),
    Mutant("loss", OUTSIDE, "mask=inside, other=-1)", "mask=d <= D, other=-1)", "a load outside of every tensor"),
    Mutant("loss", UNWRITTEN, "<< 1), mask=inside)", "<< 1), mask=inside & count)", "grad_logits"),
    Mutant("detect", RACE, "+ tl.program_id(0)) * M\n    d =", "+ tl.program_id(0)) * (M - 1)\n    d =",
           "a race: program instances"),
    Mutant("detect", OUTSIDE, "tl.store(scores + image * K + i, score, mask=i < K)",
           "tl.store(scores + image * K + i, score, mask=i < K + 1)", "a store outside of every tensor"),
    Mutant("detect", UNWRITTEN, "mask=slot >= tl.sum(chosen)", "mask=slot > tl.sum(chosen)",
           "a load outside of every tensor"),
    Mutant("crop", RACE, "out + (image * size * size + pixel) * 3", "out + (image * (size * size - 1) + pixel) * 3",
           "a race: program instances"),
    Mutant("crop", OUTSIDE, "tl.maximum(tl.floor(centre - reach), 0.0)", "tl.floor(centre - reach)",
           "a load outside of every tensor"),
    Mutant("crop", UNWRITTEN, "tl.store(at + 1, _byte(g)", "tl.store(at + 2, _byte(g)", "images"),
)  # fmt: skip
"""The last one of detect reads a default box's number that nobody wrote, and loads from there."""

DRIVER = """
import json, sys
import torch
import ssd.vendor.triton
from ssd.conformance.cases import cases_of
from ssd.conformance.run import Plan, run_here
from ssd.vendor import load_vendor
from ssd.vendor.overrides import RACES_CHECKED

torch.set_num_threads(1)
vendor = load_vendor("nvidia")
found = []
for folder, op in json.loads(sys.argv[1]):
    # A mutant is a copy of the folder with one change: its modules are imported in place of ours.
    ssd.vendor.triton.__path__ = [folder]
    for module in [module for module in sys.modules if module.startswith("ssd.vendor.triton.")]:
        del sys.modules[module]
    [override] = [o for o in vendor.overrides() if (o.op, o.name) == (op, "triton")]
    for case in [case.name for case in cases_of(op) if case.quick]:
        [row] = run_here(vendor, override, RACES_CHECKED, Plan(case=case))
        if row.ok is False:
            break
    found.append([row.case, row.ok, row.note])
print(json.dumps(found))
"""


def mutate(mutant: Mutant, folder: Path) -> None:
    """Copy the kernels to a folder, with the mutant's change. ValueError where the kernel no longer has its text."""
    shutil.copytree(KERNELS, folder)
    source = folder / f"{mutant.op}.py"
    text = source.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        raise ValueError(f"{source.name} holds {mutant.before!r} {text.count(mutant.before)} times, not once")
    source.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")


def rows_of(mutants: Sequence[Mutant]) -> list[tuple[str, bool, str]]:
    """For each mutant: the case that caught it (or the last one), whether it passed, and what the row says."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number, mutant in enumerate(mutants):
            mutate(mutant, Path(folder) / str(number))
            jobs.append((str(Path(folder) / str(number)), mutant.op))
        command = [sys.executable, "-W", "ignore", "-c", DRIVER, json.dumps(jobs)]
        done = subprocess.run(command, cwd=ROOT / "base", capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return [tuple(row) for row in json.loads(done.stdout.splitlines()[-1])]


def main(argv: Sequence[str]) -> int:
    """Run both, write the page, and print what failed."""
    from ssd.conformance import run
    from ssd.ops import OP_NAMES
    from ssd.vendor import load_vendor
    from ssd.vendor.overrides import RACES_CHECKED

    parser = argparse.ArgumentParser(prog="python tests/races.py", description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--op", nargs="+", choices=OP_NAMES, default=list(OP_NAMES))
    parser.add_argument("--seed", type=int, default=0, help="of the random cases")
    asked = parser.parse_args(argv)
    os.environ.pop("TRITON_INTERPRET", None)

    run.CHILD_SECONDS = 3600.0  # nobody waits for this as for a suite
    plan = run.Plan(asked.seed)
    rows = run.run_conformance(load_vendor("nvidia"), asked.op, [RACES_CHECKED], names=["triton"], plan=plan)
    mutants = [mutant for mutant in MUTANTS if mutant.op in asked.op]
    caught = rows_of(mutants)
    wrong = [f"{row.op}, {row.case}: {row.verdict}: {row.note}" for row in rows if not row.ok]
    for mutant, (_, ok, note) in zip(mutants, caught, strict=True):
        if ok or mutant.said not in note:
            wrong.append(f"mutant of {mutant.op}, {mutant.kind}: not caught for that: {note}")
    asked.page.write_text(page(rows, list(zip(mutants, caught, strict=True)), asked.seed), encoding="utf-8")
    print("\n".join(wrong) or f"{len(rows)} cases are clean; {len(mutants)} mutants are caught: {asked.page}")
    return 1 if wrong else 0


def page(rows: Sequence[Any], mutants: Sequence[tuple[Mutant, tuple[str, bool, str]]], seed: int) -> str:
    """What was found, as a page of docs. rows: those of the kernels themselves."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("ttsem", "triton", "torch"))
    counts = {row.op: [one.ok for one in rows if one.op == row.op] for row in rows}
    lines = [
        "# Races, accesses outside of tensors and unwritten memory, looked for in Triton's IR",
        "",
        f"The last output of `make test-races`: {versions}, Python {platform.python_version()}, seed {seed}.",
        "ttsem executes on the CPU the IR that Triton makes of the kernels for sm_90. **No GPU was involved.** It does",
        "not see a store of the value that is there already; the interpreter of `vendors check` does.",
        "",
        "| op | cases | clean |", "|---|---|---|",
        *(f"| {op} | {len(found)} | {sum(ok is True for ok in found)} |" for op, found in counts.items()),
        "",
        "Mutants of the kernels with one fault each. What caught each of them, in the words of its row:",
        "",
        "| op | fault | what stood there | what it became | case | found |", "|---|---|---|---|---|---|",
        *(
            f"| {mutant.op} | {mutant.kind} | `{inline(mutant.before)}` | `{inline(mutant.after)}` | {case} | "
            f"{'**nothing**' if ok else inline(note)} |"
            for mutant, (case, ok, note) in mutants
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def inline(text: str) -> str:
    """Text for a cell of a table: one line, no bar."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
