"""The mutants of the kernels: each patch applies, each kernel has its kinds, and the page lists what caught each.

`make kernel-mutants` runs all of them. Here a slice is run: one of each language.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssd.vendor.csrc.build import CSRC, gxx

sys.path.insert(0, str(Path(__file__).parent))
import kernel_mutants
import kernel_mutants_list as listed

MUTANTS = listed.mutants()
LAUNCHED = {"Triton": r"^def (_\w+)\((?:(?!^def ).)*?Grid ", "CUDA C++": r"^__global__ void (\w+)"}
"""How a source says which of its functions are kernels."""


def kernels(language: str) -> set[str]:
    files = listed.TRITON.glob("*.py") if language == "Triton" else CSRC.glob("*.cu")
    texts = [file.read_text() for file in files]
    return {name for text in texts for name in re.findall(LAUNCHED[language], text, re.MULTILINE | re.DOTALL)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.language} {m.kernel} {m.kind}: {m.what}")
def test_each_patch_applies_to_a_copy_and_changes_it(mutant, tmp_path: Path) -> None:
    copy = listed.broken(mutant, tmp_path)
    before, after = (mutant.sources / mutant.file).read_text(), (copy / mutant.file).read_text()
    assert before != after
    assert mutant.kind in listed.KINDS
    if mutant.language == "Triton":
        compile(after, mutant.file, "exec")


@pytest.mark.parametrize("language", LAUNCHED)
def test_every_kernel_has_mutants_of_every_kind_that_it_can_have(language: str) -> None:
    mine = [m for m in MUTANTS if m.language == language]
    assert len(kernels(language)) >= 10
    for kernel in kernels(language):
        kinds = {m.kind for m in mine if m.kernel == kernel}
        assert {"race", "out of bounds", "uninitialised", "edge"} <= kinds, (kernel, kinds)
    for op in ("encode", "loss", "detect"):
        assert "tie" in {m.kind for m in mine if m.op == op}
    assert "gradient" in {m.kind for m in mine if m.op == "loss"}
    assert {"augment", "loss"} <= {m.op for m in mine if m.kind == "non-determinism"}


def test_the_page_lists_what_caught_each_mutant() -> None:
    rows = listed.page_rows(listed.PAGE.read_text(encoding="utf-8"))
    assert [m.what for m in MUTANTS if listed.named(m) not in rows] == [], "make kernel-mutants lists them"
    assert [row for row in rows.values() if listed.NOT_CAUGHT in row] == []
    assert len({listed.named(m) for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.slow
@pytest.mark.skipif(gxx(32) is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    ("only", "row"),
    [
        (
            "Triton encode _assign race",
            r"\| B=3, 9 places \| emulator \| kernel _assign, encode.py line \d+, .*: a race \|",
        ),
        (
            "CUDA C++ encode assign_defaults out",
            r"\| host build, warp 32 \| kernel assign_defaults, thread \d+ of .* \|",
        ),
    ],
)
def test_a_mutant_is_caught_by_a_named_row(root: Path, only: str, row: str) -> None:
    if only.startswith("Triton"):
        pytest.importorskip("triton")
    environ = os.environ | {"PYTHONPATH": str(root / "base")}
    command = [sys.executable, str(root / "tests" / "kernel_mutants.py"), "--only", only]
    done = subprocess.run(command, cwd=root / "base", env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(row, done.stdout), done.stdout
    assert "1 of 1 mutants are caught" in done.stdout


def test_a_mutant_that_is_no_program_is_no_catch() -> None:
    row = kernel_mutants.Row("loss", "mutant", "ties", "emulator", False, note="NameError: name 'x' is not defined")
    with pytest.raises(ValueError, match="the mutant does not run: NameError"):
        kernel_mutants.require_kernels_fault(row)
    off = kernel_mutants.Row("loss", "mutant", "ties", "emulator", False, 0.5, 0.1, note="loss")
    kernel_mutants.require_kernels_fault(off)
    assert kernel_mutants.said(off) == "loss is off by 0.5, allowed 0.1"
