"""The kernels of base/csrc, executed on the host: against the reference, at both warp sizes, line by line, sanitized.

Threads of a block run one after the other between barriers, in ascending or descending order: a result that depends on
the order is a race. Each mutation test breaks a copy of the sources in one place and must turn the comparison red.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from ssd.boxes import default_boxes
from ssd.compute.capture import CaptureGuard
from ssd.conformance.cases import cases_of
from ssd.conformance.compare import Mismatch, compare
from ssd.errors import MachineError
from ssd.ops import OP_NAMES, REFERENCE
from ssd.vendor.csrc.build import CSRC, _seal, build, gxx, nvcc, open_library
from ssd.vendor.csrc.ops import check_warp, ops_of

ASCENDING, DESCENDING = 0, 1
CPU = torch.device("cpu")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(gxx(64) is None, reason="no C++ compiler: the host build of base/csrc is not tested"),
]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("built")


@pytest.fixture
def host_ops(cache_dir):
    """(warp, order) -> the ops of the host build."""

    def make(warp, order=ASCENDING):
        path = build(gxx(warp), cache_dir)
        open_library(path).ssd_host_order(order)
        return ops_of(path)

    return make


def failures(op, ops, cases):
    """Names of the cases in which an override is not the reference."""

    def fails(case):
        try:
            return not compare(case, getattr(ops, op), CPU).ok
        except (Mismatch, MachineError):
            return True

    return [case.name for case in cases if fails(case)]


def quick_cases(op):
    return [case for case in cases_of(op) if case.quick]


@pytest.mark.parametrize(("warp", "order"), [(64, ASCENDING), (32, DESCENDING)])
@pytest.mark.parametrize("op", OP_NAMES)
def test_every_case_matches_the_reference(host_ops, op, warp, order):
    assert failures(op, host_ops(warp, order), cases_of(op)) == []


@pytest.mark.parametrize(("warp", "order"), [(64, DESCENDING), (32, ASCENDING)])
@pytest.mark.parametrize("op", OP_NAMES)
def test_quick_cases_match_in_the_other_order(host_ops, op, warp, order):
    assert failures(op, host_ops(warp, order), quick_cases(op)) == []


def test_same_bits_whatever_the_order_of_threads(host_ops):
    case = next(case for case in cases_of("loss") if case.quick)
    inputs = case.make()
    losses = [host_ops(64, order).loss(*inputs) for order in (ASCENDING, DESCENDING)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("op", OP_NAMES)
def test_launches_are_safe_in_a_cuda_graph(host_ops, op):
    """Workspace and outputs have sizes that no value decides, and nothing is read back."""
    case = cases_of(op)[0]
    inputs = case.make()
    with CaptureGuard():
        getattr(host_ops(64), op)(*inputs, **case.options)


# Special values of the short formats: infinite and missing logits, gradients that overflow or vanish.
def special_values(ops, dtype):
    r = torch.Generator().manual_seed(3)
    logits = torch.randn((3, 5, 300), generator=r).to(dtype)
    logits[0, 0, :9] = float("-inf")
    logits[0, 1, 3] = 2.0**-20  # below the normal range of fp16
    logits[2, 1, 5] = float("nan")
    locations = torch.zeros((3, 4, 300), dtype=dtype)
    labels = torch.randint(0, 5, (3, 300), generator=r)
    labels[0, :9] = 1
    given = [x.requires_grad_() for x in (locations, logits)]
    loss = ops.loss(*given, torch.ones((3, 4, 300)), labels)
    weights = torch.tensor((1e8, 1e-5, 1.0))
    return loss.detach(), *torch.autograd.grad(loss, given, weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_special_values_of_short_formats(host_ops, dtype):
    found, wanted = special_values(host_ops(64), dtype), special_values(REFERENCE, dtype)
    for ours, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-2, atol=1e-7, equal_nan=True)
    assert found[2].isinf().any() == (dtype is torch.float16)


CONVERSIONS = """
#include "numbers.h"
extern "C" void to_fp16(const float* from, Fp16* to, long n) { for (long i = 0; i < n; ++i) store(to[i], from[i]); }
extern "C" void to_bf16(const float* from, Bf16* to, long n) { for (long i = 0; i < n; ++i) store(to[i], from[i]); }
extern "C" void from_fp16(const Fp16* from, float* to, long n) { for (long i = 0; i < n; ++i) to[i] = load(from[i]); }
extern "C" void from_bf16(const Bf16* from, float* to, long n) { for (long i = 0; i < n; ++i) to[i] = load(from[i]); }
"""


def test_conversions_agree_with_torch_for_every_short_float(tmp_path):
    """All 65,536 patterns of each format, the midpoints between neighbours, and what lies beside the midpoints."""
    (tmp_path / "conversions.cu").write_text(CONVERSIONS)
    shutil.copy(CSRC / "runtime.cu", tmp_path)
    library = open_library(build(gxx(32, (f"-I{CSRC}",)), tmp_path, tmp_path))
    patterns = torch.arange(-(2**15), 2**15).to(torch.int16)
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        short = patterns.view(dtype)
        wide = torch.empty(len(short))
        getattr(library, f"from_{name}")(address(short), address(wide), len(short))
        assert torch.equal(wide.nan_to_num(7.5), short.float().nan_to_num(7.5))

        finite = wide[wide.isfinite()].sort().values
        middle = (finite[1:].double() + finite[:-1].double()).div(2).float()
        around = [middle, torch.nextafter(middle, middle + 1), torch.nextafter(middle, middle - 1)]
        probes = torch.cat([wide, *around, 65520.0 * torch.tensor((1.0, -1.0, 0.9999999)), torch.tensor((3.4e38,))])
        back = torch.empty(len(probes), dtype=dtype)
        getattr(library, f"to_{name}")(address(probes), address(back), len(probes))
        wanted = probes.to(dtype)
        assert torch.equal(back.isnan(), wanted.isnan())
        number = ~wanted.isnan()
        assert torch.equal(back[number].view(torch.int16), wanted[number].view(torch.int16))


def address(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


# --- what is refused ------------------------------------------------------------------------------------------------


def test_boxes_that_begin_at_any_address_are_accepted(host_ops):
    boxes, labels, defaults = next(case for case in cases_of("encode") if case.quick).make()
    shifted = torch.cat((torch.zeros(1), boxes.flatten()))[1:].view(boxes.shape)
    assert shifted.data_ptr() % 16 != 0
    found, wanted = host_ops(64).encode(shifted, labels, defaults), REFERENCE.encode(boxes, labels, defaults)
    assert torch.equal(found[1], wanted[1])


def test_float64_is_computed_in_float32_and_gets_gradients_of_its_own_type(host_ops):
    locations, logits, offsets, labels = next(case for case in cases_of("loss") if case.quick).make()
    wide = [x.double().requires_grad_() for x in (locations, logits)]
    loss = host_ops(64).loss(*wide, offsets, labels)
    loss.sum().backward()
    torch.testing.assert_close(loss, REFERENCE.loss(locations, logits, offsets, labels), rtol=1e-5, atol=1e-6)
    assert [x.grad.dtype for x in wide] == [torch.float64] * 2


def test_an_empty_batch_gives_empty_results(host_ops):
    ops, defaults = host_ops(64), default_boxes()
    assert ops.loss(
        torch.zeros(0, 4, 9), torch.zeros(0, 3, 9), torch.zeros(0, 4, 9), torch.zeros(0, 9).long()
    ).shape == (0,)
    assert ops.detect(torch.zeros(0, 4, 8732), torch.zeros(0, 3, 8732), defaults).boxes.shape == (0, 200, 4)
    assert ops.encode(torch.zeros(0, 2, 4), torch.zeros(0, 2).long(), defaults)[1].shape == (0, 8732)
    assert ops.augment(torch.zeros(0, 8, 8, 3).byte(), None).shape == (0, 3, 8, 8)


def test_more_candidates_than_shared_memory_holds_are_refused(host_ops):
    inputs = next(case for case in cases_of("detect") if case.quick).make()
    with pytest.raises(MachineError, match=r'at most 512.*detect_op = "reference"'):
        host_ops(64).detect(*inputs, max_candidates=513)


def test_a_library_of_another_warp_size_is_refused(cache_dir, monkeypatch):
    path = build(gxx(64), cache_dir)
    check_warp(path, 0)
    monkeypatch.setattr(open_library(path), "ssd_device_warp", lambda device: 32, raising=False)
    with pytest.raises(MachineError, match="built for 64 lanes a warp, accelerator 0 has 32"):
        check_warp(path, 0)


# --- broken kernels -------------------------------------------------------------------------------------------------

MUTATIONS = [
    ("augment", "augment.cu", "0.587f * c.g", "0.687f * c.g"),
    ("augment", "augment.cu", "+ 12.0f, 6.0f)", "+ 11.9f, 6.0f)"),
    ("encode", "boxes.h", "5.0f * logf((truth.bottom", "4.0f * logf((truth.bottom"),
    ("encode", "encode.cu", "if (iou > most)", "if (iou >= most)"),
    ("loss", "loss.cu", "0.5f * size * size", "0.6f * size * size"),
    ("loss", "loss.cu", "difference >= 1 ? 1.0f", "difference >= 1 ? 2.0f"),
    ("detect", "detect.cu", "max_candidates, candidates)", "max_candidates - 1, candidates)"),
    ("detect", "boxes.h", "expf(offset[3] / 5.0f)", "expf(offset[3] / 4.0f)"),
]


@pytest.fixture
def mutate(tmp_path):
    """(file, old, new, warp) -> the ops of a copy of the sources in which `old`, found once, became `new`."""

    def make(file, old, new, warp=64, order=ASCENDING):
        copy = tmp_path / f"csrc{warp}"
        if not copy.exists():
            shutil.copytree(CSRC, copy)
            text = (copy / file).read_text()
            assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
            (copy / file).write_text(text.replace(old, new))
        path = build(gxx(warp, ("-O0",)), tmp_path, copy)
        open_library(path).ssd_host_order(order)
        return ops_of(path)

    return make


@pytest.mark.parametrize(("op", "file", "old", "new"), MUTATIONS)
def test_a_changed_constant_is_found(mutate, op, file, old, new):
    assert failures(op, mutate(file, old, new), quick_cases(op))


def test_a_kernel_that_assumes_32_lanes_passes_with_32_and_fails_with_64(mutate):
    mutation = ("block.h", "int delta = WARP / 2", "int delta = 16")
    assert failures("loss", mutate(*mutation, warp=32), quick_cases("loss")) == []
    assert failures("loss", mutate(*mutation, warp=64), quick_cases("loss"))


def test_a_missing_barrier_is_found_in_one_of_the_two_orders(mutate):
    mutation = (
        "block.h",
        "partial[threadIdx.x / WARP] = value;\n    __syncthreads();",
        "partial[threadIdx.x / WARP] = value;",
    )
    found = [failures("loss", mutate(*mutation, order=order), quick_cases("loss")) for order in (ASCENDING, DESCENDING)]
    assert any(found)


def test_a_barrier_that_some_threads_never_reach_is_an_error_and_not_a_hang(mutate):
    ops = mutate(
        "loss.cu", "count = block_reduce(count, Sum());", "if (threadIdx.x > 7) count = block_reduce(count, Sum());"
    )
    inputs = next(case for case in cases_of("loss") if case.quick).make()
    for _ in range(2):  # the second launch finds no trace of the first one's threads
        with pytest.raises(MachineError, match=r"ssd_loss_forward.*wait at different barriers"):
            ops.loss(*inputs)
    assert failures("encode", ops, quick_cases("encode")) == []


# --- every line, and no stray access --------------------------------------------------------------------------------

RUN_ALL = """
import sys
import torch
from pathlib import Path
from ssd.conformance.cases import cases_of
from ssd.conformance.compare import outputs
from ssd.vendor.csrc.build import open_library
from ssd.vendor.csrc.ops import check_warp, ops_of
from ssd.ops import OP_NAMES

torch.set_num_threads(1)
path = Path(sys.argv[1])
ops = ops_of(path)
check_warp(path, 0)
for op in OP_NAMES:
    for case in cases_of(op):
        if case.quick or "all" in sys.argv:
            outputs(case, getattr(ops, op), case.make())
open_library(path).ssd_host_order(0), open_library(path).ssd_error_text(0)
for dtype in (torch.float16, torch.bfloat16):
    logits = torch.full((1, 3, 300), float("-inf"), dtype=dtype)
    logits[0, 1] = float("nan")
    logits.requires_grad_()
    loss = ops.loss(torch.zeros(1, 4, 300), logits, torch.zeros(1, 4, 300), torch.ones(1, 300).long())
    torch.autograd.grad(loss, logits, torch.full((1,), 1e9))
    finite = torch.zeros((1, 3, 300), dtype=dtype).requires_grad_()
    loss = ops.loss(torch.zeros(1, 4, 300), finite, torch.zeros(1, 4, 300), torch.ones(1, 300).long())
    torch.autograd.grad(loss, finite, torch.full((1,), 1e9))
if "stray" in sys.argv:  # one default box too many: reads and writes beyond the tensors
    boxes = torch.zeros(1, 1, 4)
    short = [torch.zeros(1, 4, 300), torch.zeros(1, 300).long()]
    from ssd.vendor.csrc.ops import _Kernels
    _Kernels(open_library(path)).call(
        "ssd_encode", boxes, torch.ones(1, 1).long(), torch.zeros(300, 4), torch.zeros(300, 4), torch.zeros(1, 1).int(),
        *short, 1, 1, 301, 0.5, 0.0)
"""


def run_all(path, *arguments, **environ):
    env = {**os.environ, "PYTHONPATH": str(CSRC.parent), "OMP_NUM_THREADS": "1", **environ}
    return subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(path), *arguments], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(shutil.which("gcov") is None, reason="no gcov: lines of the kernels are not counted")
def test_every_line_of_the_kernels_is_executed(tmp_path):
    path = tmp_path / f"kernels-{0:016x}.so"
    call = gxx(64, ("-O0", "--coverage")).call(sorted(CSRC.glob("*.cu")), path)
    subprocess.run(call, cwd=tmp_path, check=True)
    body = path.read_bytes()
    path.write_bytes(body + _seal(path, body))
    done = run_all(path, "all")
    assert done.returncode == 0, done.stderr
    counts = {}
    for data in tmp_path.glob("*.gcda"):
        gcov = ["gcov", "--json-format", "--stdout", data.name]
        shown = subprocess.run(gcov, cwd=tmp_path, capture_output=True, text=True, check=True)
        for file in (file for line in shown.stdout.splitlines() for file in json.loads(line)["files"]):
            for line in file["lines"]:
                where = (os.path.basename(file["file"]), line["line_number"])
                counts[where] = counts.get(where, 0) + line["count"]
    kernels = {where: count for where, count in counts.items() if (CSRC / where[0]).exists() and where[0] != "host.h"}
    assert {where[0] for where in kernels} >= {f"{op}.cu" for op in OP_NAMES} | {"block.h", "boxes.h", "numbers.h"}
    assert len(kernels) > 300
    assert [where for where, count in sorted(kernels.items()) if count == 0] == []


@pytest.fixture(scope="module")
def sanitizers():
    """What to preload, and nothing where the compiler has no sanitizers."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        shown = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=False)
        found.append(shown.stdout.strip())
    if not all(os.path.isabs(path) for path in found):
        pytest.skip("no address sanitizer for g++")
    return {"LD_PRELOAD": " ".join(found), "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1"}


def test_no_stray_access_and_no_undefined_behaviour(tmp_path, sanitizers):
    flags = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
    # Division of floats by zero is defined by IEEE 754, and overlaps of empty boxes rely on it.
    path = build(gxx(64, (*flags, "-fno-sanitize=float-divide-by-zero")), tmp_path)
    clean = run_all(path, **sanitizers)
    assert clean.returncode == 0, clean.stderr[-2000:]
    stray = run_all(path, "stray", **sanitizers)
    assert stray.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in stray.stderr


# --- the device's compiler ------------------------------------------------------------------------------------------


@pytest.mark.skipif(nvcc() is None, reason="no nvcc: the kernels are not compiled for a device")
def test_nvcc_compiles_the_kernels_and_a_failed_launch_is_a_machine_error(cache_dir):
    path = build(nvcc(), cache_dir)
    library = open_library(path)
    assert library.ssd_warp() == 32
    if torch.cuda.is_available():
        check_warp(path, 0)
        return
    with pytest.raises(MachineError, match="no accelerator 0: "):
        check_warp(path, 0)
    boxes, labels, defaults = next(case for case in cases_of("encode") if case.quick).make()
    with pytest.raises(MachineError, match=r"kernel ssd_encode of .* failed: error "):
        ops_of(path).encode(boxes, labels, defaults)
