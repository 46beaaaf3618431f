"""The mutants of the kernels as data, copies of the sources with one in it, and the page of what caught each."""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from ssd.config.files import tomllib
from ssd.vendor.csrc.build import CSRC

__all__ = ["KINDS", "Caught", "Mutant", "broken", "mutants", "named", "page_rows", "row_of", "versions", "write_page"]

ROOT = Path(__file__).resolve().parent.parent
DATA, PAGE = ROOT / "tests" / "kernel_mutants.toml", ROOT / "docs" / "kernel-mutants.md"
TRITON = ROOT / "base" / "ssd" / "vendor" / "triton"
HEADING, NOT_CAUGHT = "## The list\n", "**not caught**"
KINDS = ("race", "out of bounds", "uninitialised", "tie", "edge", "gradient", "non-determinism", "arithmetic")


@dataclass(frozen=True)
class Mutant:
    """One changed place. kind: of KINDS. what: in words. file, old, new: the patch; `old` stands there once."""

    op: str
    kernel: str
    kind: str
    what: str
    file: str
    old: str
    new: str

    @property
    def sources(self) -> Path:
        """The folder that `file` stands in."""
        return TRITON if self.file.endswith(".py") else CSRC

    @property
    def language(self) -> str:
        """In a word."""
        return "Triton" if self.sources == TRITON else "CUDA C++"


@dataclass(frozen=True)
class Caught:
    """The row of the suite that is red. case: "" where none was."""

    case: str = ""
    means: str = ""
    note: str = ""


def mutants() -> list[Mutant]:
    """Every mutant, in the order of the file."""
    return [Mutant(**values) for values in tomllib.loads(DATA.read_text(encoding="utf-8"))["mutant"]]


def broken(mutant: Mutant, folder: Path) -> Path:
    """A copy of the sources with the mutant in it. ValueError where its patch does not apply."""
    text = (mutant.sources / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} holds {text.count(mutant.old)} times, not once: {mutant.old!r}")
    copy = folder / "kernels"
    shutil.copytree(mutant.sources, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / mutant.file).write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    return copy


def named(mutant: Mutant) -> str:
    """The first cells of a mutant's row."""
    return f"| {mutant.language} | {mutant.op} | `{mutant.kernel}` | {mutant.kind} | {mutant.what} |"


def row_of(mutant: Mutant, by: Caught) -> str:
    """A line of the list, in Markdown."""
    cells = (cell.replace("|", "\\|") for cell in (by.case or NOT_CAUGHT, by.means, by.note))
    return f"{named(mutant)} {' | '.join(cells)} |"


def page_rows(text: str) -> dict[str, str]:
    """Rows of the page by their first cells."""
    lines = text.partition(HEADING)[2].splitlines()
    return {" |".join(line.split(" |")[:5]) + " |": line for line in lines if line.startswith("| ")}


def write_page(rows: list[str]) -> None:
    """Put rows into the page, in the order of the mutants; rows of mutants that are no more leave it."""
    with DATA.open() as lock:  # several may run at once, each for some of the mutants
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = PAGE.read_text(encoding="utf-8")
        found = page_rows(text) | page_rows(HEADING + "\n".join(rows))
        listed = [found[named(mutant)] for mutant in mutants() if named(mutant) in found]
        caught = sum(NOT_CAUGHT not in row for row in listed)
        head = "language | op | kernel | kind | what is broken | row | means | what the row says"
        lines = [f"{caught} of {len(mutants())} mutants are caught. {versions()}", "", f"| {head} |", "|" + "---|" * 8]
        PAGE.write_text("\n".join([text.partition(HEADING)[0] + HEADING, *lines, *listed, ""]), encoding="utf-8")


def versions() -> str:
    """What the list was made with."""
    import triton

    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return f"Python {platform.python_version()}, torch {torch.__version__}, Triton {triton.__version__}, {compiler}."
