"""The Triton kernels without a GPU: run by Triton's interpreter, compiled for GPUs that are not here, and mutated.

Whether kernels are interpreted is settled when Triton is imported, so everything here happens in two child processes,
one that interprets and one that compiles, started once. `vendors check nvidia` runs all cases; here are the quick ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

OPS = ("augment", "encode", "loss", "detect", "crop")
KERNELS = Path("base/ssd/vendor/triton")

# One changed constant or comparison each, at least one in every function of the kernels: op, file, what stands there,
# what it becomes.
MUTANTS = {
    "augment_grey": ("augment", "augment.py", "RED * r + GREEN * g", "RED * r + RED * g"),
    "augment_clamp": ("augment", "augment.py", "tl.maximum(x, 0.0), 1.0)", "tl.maximum(x, 0.0), 0.99)"),
    "augment_scale": ("augment", "augment.py", "stride_c, mask=inside, other=0).to(tl.float32) / 255.0",
                      "stride_c, mask=inside, other=0).to(tl.float32) / 254.0"),
    "augment_hue": ("augment", "augment.py", "tl.minimum(k, 4.0 - k)", "tl.minimum(k, 3.5 - k)"),
    "augment_hue_of_blue": ("augment", "augment.py", "4.0 + (r - g)", "4.1 + (r - g)"),
    "augment_blend": ("augment", "augment.py", "rest = (1.0 - factor) * mean", "rest = (1.1 - factor) * mean"),
    "augment_mean_too_early": ("augment", "augment.py", "        if operation == 1:\n            before",
                               "        if operation == 2:\n            before"),
    "augment_last_block": ("augment", "augment.py", "mask=i < BLOCKS", "mask=i < BLOCKS - 1"),
    "augment_normalise": ("augment", "augment.py", "(g - mean_g) / std_g", "(g - mean_g) / std_r"),
    "encode_overlap": ("encode", "encode.py", "tl.minimum(b1, b2) - tl.maximum(t1, t2)", "tl.minimum(b1, b2) - t1"),
    "encode_padding": ("encode", "encode.py", "(tl.load(labels + at) > 0)", "(tl.load(labels + at) > 1)"),
    "encode_sides": ("encode", "encode.py", "tl.load(ltrb + d * 4 + 3,", "tl.load(ltrb + d * 4 + 2,"),
    "encode_next_default": ("encode", "encode.py", "tl.where(better, d, where)", "tl.where(better, d + 1, where)"),
    "encode_last_default": ("encode", "encode.py", "better = iou > largest", "better = iou >= largest"),
    "encode_first_claim": ("encode", "encode.py", "tl.where(forced >= 0, forced,", "tl.where(forced >= 1, forced,"),
    "encode_centre": ("encode", "encode.py", "(l1 + r1) * 0.5 - x", "(l1 + r1) * 0.501 - x"),
    "loss_one_bit_less": ("loss", "select.py", "range(31)", "range(27)"),
    "loss_ties": ("loss", "select.py", "<= spare", "< spare"),
    "loss_smooth": ("loss", "loss.py", "tl.where(size < 1.0,", "tl.where(size < 0.9,"),
    "loss_positives": ("loss", "loss.py", "tl.maximum(positives, 1)", "tl.maximum(positives, 8)"),
    "loss_gradient": ("loss", "loss.py", "tl.where(delta > 1.0, 1.0,", "tl.where(delta > 1.0, 0.99,"),
    "detect_size": ("detect", "detect.py", "* h * 0.5\n", "* h * 0.51\n"),
    "detect_softmax": ("detect", "detect.py", "x = tl.where((c < C)[:", "x = tl.where((c < C - 1)[:"),
    "detect_candidates": ("detect", "detect.py", "largest(key, most)", "largest(key, most - 1)"),
    "detect_rank": ("detect", "detect.py", "(0xFFFFF - d)", "(0xFFFFE - d)"),
    "detect_better": ("detect", "detect.py", "other[None, :] > key[:, None]", "other[None, :] < key[:, None]"),
    "detect_class": ("detect", "detect.py", "(0xFFF - tl.program_id(0) - 1)", "(0xFFF - tl.program_id(0) - 2)"),
    "detect_overlap": ("detect", "detect.py", "(iou >= overlap_limit)", "(iou >= overlap_limit + 0.01)"),
    "detect_one_round": ("detect", "detect.py", "while changed > 0:", "for _ in range(1):"),
    "detect_label": ("detect", "detect.py", "0xFFF - (key & 0xFFF)", "0xFFE - (key & 0xFFF)"),
    "crop_reach": ("crop", "crop.py", "tl.maximum(scale, 1.0)", "tl.maximum(scale, 1.1)"),
    "crop_begins_within_a_cell": ("crop", "crop.py", "begin = (low - first", "begin = 0 * (low - first"),
    "crop_taps": ("crop", "crop.py", "2.0 * reach + 0.5", "2.0 * reach - 0.5"),
    "crop_beyond_the_end": ("crop", "crop.py", "cell < count", "cell <= count"),
    "crop_normalise": ("crop", "crop.py", "total += weight", "total += weight * 1.01"),
    "crop_clamp": ("crop", "crop.py", "tl.maximum(x, 0.0), 255.0)", "tl.maximum(x, 0.0), 253.0)"),
    "crop_rounds_down": ("crop", "crop.py", " + MIDDLE - MIDDLE)", ")"),
    "crop_colour": ("crop", "crop.py", "RED_OF_CR * cr", "RED_OF_CR * cb"),
}  # fmt: skip

DRIVER = """
import json, sys, time
import torch
from ssd.conformance.cases import cases_of, small_case
from ssd.conformance.run import Plan, _run_case, run_here
import ssd.vendor.triton
from ssd.vendor import load_vendor

torch.set_num_threads(1)
means, folder, jobs = json.loads(sys.argv[1])
report, cost = {}, {}
vendor, kernels = load_vendor("nvidia"), ssd.vendor.triton.__path__
for name, op in jobs:
    # A mutant is a copy of the folder with one change: its modules are imported in place of ours.
    ssd.vendor.triton.__path__ = kernels if name == "ours" else [f"{folder}/{name}"]
    for module in [module for module in sys.modules if module.startswith("ssd.vendor.triton.")]:
        del sys.modules[module]
    [override] = [o for o in vendor.overrides() if (o.op, o.name) == (op, "triton")]
    rows = []
    # A mutant is done with when it is caught, so the cheapest cases come first; what is only compiled has no cases.
    small = small_case(op)
    if means == "emulator" and not report:  # what is imported or made once is the cost of no case
        _run_case(override, means, small, override.load(means), torch.device("cpu"))
    cases = [small.name, *(case.name for case in cases_of(op) if case.quick)] if means == "emulator" else [None]
    for case in cases if name == "ours" else sorted(cases, key=lambda case: cost[op, case]):
        began = time.process_time()
        if case == small.name:
            rows.append(_run_case(override, means, small, override.load(means), torch.device("cpu")))
        else:
            rows += run_here(vendor, override, means, Plan(quick=True, case=case))
        cost.setdefault((op, case), time.process_time() - began)
        if name != "ours" and rows[-1].ok is False:
            break
    report[f"{name} {op}"] = [[row.case, row.ok, row.note, row.error] for row in rows]
other = {"emulator": "hardware", "compiled only": "emulator"}[means]
try:
    override.load(other)
    report["other"] = ""
except Exception as error:
    report["other"] = f"{type(error).__name__}: {error}"
print(json.dumps(report))
"""


def child(root: Path, folder: Path, means: str, jobs: list[tuple[str, str]]) -> dict[str, list]:
    """What DRIVER reports."""
    environ = os.environ | {"TRITON_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environ.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, json.dumps([means, str(folder), jobs])]
    done = subprocess.run(command, cwd=root / "base", env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def emulated(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """Rows of the kernels and of every mutant, by the interpreter."""
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("mutants")
    jobs = [("ours", op) for op in OPS]
    for name, (op, file, before, after) in MUTANTS.items():
        shutil.copytree(root / KERNELS, folder / name)
        source = folder / name / file
        text = source.read_text()
        assert before in text, f"mutant {name}: {file} no longer holds {before!r}"
        source.write_text(text.replace(before, after))
        jobs.append((name, op))
    return child(root, folder, "emulator", jobs)


@pytest.fixture(scope="module")
def compiled(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """What was compiled for the GPUs that are not here: one op, as test_matrix.py compiles them all."""
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("compiled")
    return child(root, folder, "compiled only", [("ours", "encode")])


@pytest.mark.parametrize("op", OPS)
def test_interpreted_kernels_agree_with_the_reference(emulated: dict[str, list], op: str) -> None:
    rows = emulated[f"ours {op}"]
    assert len(rows) >= 2
    assert [row for row in rows if row[1] is not True] == []


def functions(source: str) -> dict[str, str]:
    """The text of each function that Triton compiles, by name."""
    parts = re.split(r"^@triton\.jit\ndef (\w+)", source, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("file", ["augment.py", "encode.py", "loss.py", "detect.py", "crop.py", "select.py"])
def test_every_function_of_the_kernels_has_a_mutant(root: Path, file: str) -> None:
    found = functions((root / KERNELS / file).read_text())
    changed = [before for _, where, before, _ in MUTANTS.values() if where == file]
    assert found
    assert [name for name, text in found.items() if not any(before in text for before in changed)] == []


@pytest.mark.parametrize("name", MUTANTS)
def test_one_changed_constant_turns_a_row_red(emulated: dict[str, list], name: str) -> None:
    rows = emulated[f"{name} {MUTANTS[name][0]}"]
    assert any(row[1] is False for row in rows), rows
    # Red for what the kernel computed or where it read, not for failing to run.
    computed = ("not finite", "AccessError", "the same inputs gave another")
    assert all(row[3] is not None or any(words in row[2] for words in computed) for row in rows), rows


def test_compiled_for_the_targets_that_the_vendor_names(compiled: dict[str, list]) -> None:
    rows = compiled["ours encode"]
    assert [row[:2] for row in rows] == [
        ["best_defaults fp32; sm_80, sm_90", True],
        ["assign fp32; sm_80, sm_90", True],
    ]


@pytest.mark.parametrize("op", OPS)
def test_arguments_that_vary_with_the_data_make_no_programs_of_their_own(root: Path, op: str) -> None:
    source = (root / KERNELS / f"{op}.py").read_text()
    found = re.findall(r"@triton\.jit([^\n]*)\ndef \w+\((.*?)\):", source, flags=re.DOTALL)
    assert found
    # The ground truths of a batch are as many as it happens to have: no program of its own for 1, or multiples of 16.
    for decorator, arguments in found:
        assert ("N" in re.findall(r"\w+", arguments)) <= ("NOT_SPECIALISED" in decorator)


def test_a_process_that_interprets_refuses_to_compile_and_the_reverse(
    emulated: dict[str, list], compiled: dict[str, list]
) -> None:
    for report in (emulated, compiled):
        assert report["other"].startswith("MachineError")
        assert "TRITON_INTERPRET" in report["other"]


def test_the_memory_of_a_tensor_ends_with_its_last_element() -> None:
    """An access just beyond it is an error, also where the tensor is a part of another."""
    from ssd.vendor.triton.checked import _Region

    part = torch.zeros(4, 10)[1:3, 1::3]
    memory = _Region("part", part)
    assert (memory.first, memory.itemsize) == (part.data_ptr(), 4)
    assert memory.end == part[1, 2].data_ptr() + 4
    assert len(memory.stored_by) == len(memory.loaded_by) == len(memory.lane) == (memory.end - memory.first) // 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_kernels_on_the_gpu_agree_with_the_reference() -> None:
    from ssd.conformance import run_conformance
    from ssd.conformance.run import Plan
    from ssd.vendor import load_vendor

    rows = run_conformance(load_vendor("nvidia"), means=["hardware"], names=["triton"], plan=Plan(quick=True))
    assert {row.op for row in rows} == set(OPS)
    assert [row for row in rows if not row.ok] == []
