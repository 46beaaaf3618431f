"""The compile matrix: one target of each back end compiled again, and the page that holds the whole of it.

Whether Triton interprets is settled when it is imported, so a child process compiles here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssd.ops import OP_NAMES
from ssd.vendor.triton.targets import TARGETS, Target

pytestmark = pytest.mark.slow

SLICE = ("sm_90", "gfx942")
KERNELS = Path("base/ssd/vendor/triton")
DRIVER = """
import json, sys
import triton
from ssd.vendor.triton import matrix
from ssd.vendor.triton.targets import TARGETS, Target

if __name__ == "__main__":
    found = matrix.measure(sys.argv[1:], processes=1)
    page = matrix.page(found)
    assert matrix.read(page) == (triton.__version__, matrix.cells(found))
    TARGETS["too old"] = Target("cuda", 20, 32, "nothing")
    try:
        matrix.measure_one(("encode", "assign fp32", "too old"))
    except RuntimeError as error:
        print(json.dumps([page, str(error)]))
"""


def child(root: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python in base/, with a cache of Triton of its own."""
    environ = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environ |= {"TRITON_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], cwd=root / "base", env=environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def compiled(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict, str]:
    """Version of Triton, cells of SLICE as a page holds them, and what a compiler said that refused a program."""
    pytest.importorskip("triton")
    from ssd.vendor.triton.matrix import read

    folder = tmp_path_factory.mktemp("matrix")
    # A file and not -c: the processes that compile import it anew.
    (folder / "driver.py").write_text(f"import sys\nsys.path.insert(0, {str(root / 'base')!r})\n{DRIVER}")
    done = child(root, folder, str(folder / "driver.py"), *SLICE)
    assert done.returncode == 0, done.stderr
    page, refused = json.loads(done.stdout.splitlines()[-1])
    return *read(page), refused


@pytest.fixture(scope="module")
def kept(root: Path) -> tuple[str, dict]:
    """Version of Triton and cells of docs/kernel_table.md."""
    pytest.importorskip("triton")
    from ssd.vendor.triton.matrix import read

    return read((root / "docs" / "kernel_table.md").read_text())


def test_targets_are_of_two_back_ends_and_eight_generations() -> None:
    assert {"sm_75", "sm_80", "sm_90", "sm_100", "sm_120", "gfx942", "gfx950", "gfx1100"} <= set(TARGETS)
    assert {TARGETS[name].backend for name in SLICE} == {target.backend for target in TARGETS.values()}
    assert TARGETS["gfx1100"] == Target("hip", "gfx1100", 32, "RX 7900")


@pytest.mark.parametrize("op", OP_NAMES)
def test_every_kernel_is_compiled_in_every_precision_for_both_back_ends(root: Path, compiled: tuple, op: str) -> None:
    _, cells, _ = compiled
    source = (root / KERNELS / f"{op}.py").read_text()
    kernels = set(re.findall(r"@triton\.jit[^\n]*\ndef _(\w+)\((?:(?!@triton).)*?Grid \(", source, flags=re.DOTALL))
    programs = [program for one, program in cells if one == op]
    assert len(kernels) >= (1 if op == "crop" else 2)
    assert {program.split()[0] for program in programs} == kernels
    floats = {program.split()[1].strip(",") for program in programs}
    assert floats == ({"fp32"} if op in ("encode", "crop") else {"fp32", "bf16", "fp16"})
    assert all(set(row) == set(SLICE) for row in cells.values())


def test_the_page_holds_every_program_for_every_target(compiled: tuple, kept: tuple) -> None:
    assert list(kept[1]) == list(compiled[1])
    for row in kept[1].values():
        assert list(row) == list(TARGETS)
        assert all(re.fullmatch(r"\d+(\+\d+)? / \d+ / \d+", cell) for cell in row.values())


def test_the_page_says_what_is_compiled_today(compiled: tuple, kept: tuple) -> None:
    if compiled[0] != kept[0]:
        pytest.skip(f"the page was made with Triton {kept[0]}; this is {compiled[0]}")
    page = {key: {target: row[target] for target in SLICE} for key, row in kept[1].items()}
    assert page == compiled[1], "a kernel needs other registers than docs/kernel_table.md says: run `make kernel-table`"


def test_a_program_that_a_compiler_refuses_is_named_with_its_target(compiled: tuple) -> None:
    assert compiled[2].startswith("encode, assign fp32, for too old: ")
    assert "sm_20" in compiled[2]


def test_an_unknown_target_is_refused_before_anything_is_compiled(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    page = tmp_path / "page.md"
    done = child(root, tmp_path, "-m", "ssd.vendor.triton.matrix", "--output", str(page), "sm_9")
    assert done.returncode == 2
    assert "no target is called 'sm_9'. There are: sm_75, " in done.stderr
    assert not page.exists()


def test_the_page_of_triton_3_6_is_of_todays_kernels(root: Path) -> None:
    pytest.importorskip("triton")
    from ssd.vendor.triton.matrix import read
    from ssd.vendor.triton.sources import KERNELS, code_digest

    text = (root / "docs" / "kernel_table_3.6.md").read_text()
    version, cells = read(text)
    remedy = "run `make kernel-table-floor FLOOR=cuda-image`"
    assert f"(sources {code_digest(KERNELS)})" in text, remedy
    assert version.startswith("3.6.")
    beside_version, beside = read((root / "docs" / "kernel_table.md").read_text())
    assert f"In brackets: with Triton {beside_version}." in text
    assert list(cells) == list(beside)
    for key, row in cells.items():
        assert list(row) == ["sm_80", "sm_90"]
        for target, cell in row.items():
            here, _, there = cell.partition(" (")
            assert re.fullmatch(r"\d+ / \d+ / \d+", here)
            assert (there.removesuffix(")") or here) == beside[key][target], remedy
