"""The kernels of base/csrc, executed on the host: against the reference, at both warp sizes, line by line, sanitized.

Threads of a block run one after the other between barriers, in several orders of blocks, warps and lanes, and every
access to memory is looked at. tests/kernel_mutants.py breaks copies of the sources, one place at a time; the tests here
break them where one mechanism of the shim must notice.
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssd.boxes import default_boxes
from ssd.compute.capture import CaptureGuard
from ssd.conformance.cases import cases_of, small_case
from ssd.conformance.compare import Mismatch, compare, judge, outputs, wanted
from ssd.conformance.trial import same_bits
from ssd.errors import MachineError
from ssd.ops import REFERENCE
from ssd.vendor.csrc.build import CSRC, _seal, build, gxx, nvcc, open_library
from ssd.vendor.csrc.ops import _Kernels, _tensor, check_warp, ops_of
from ssd.vendor.csrc.overrides import OPS

ASCENDING, DESCENDING, ROUND_ROBIN, DRAWN = 0, 1, 2, 3
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
        path = build(gxx(warp, checked=True), cache_dir)
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


@pytest.mark.parametrize(("warp", "order"), [(64, DRAWN), (32, DESCENDING)])
@pytest.mark.parametrize("op", OPS)
def test_every_case_matches_the_reference(host_ops, op, warp, order):
    assert failures(op, host_ops(warp, order), cases_of(op)) == []


@pytest.mark.parametrize("order", [ASCENDING, ROUND_ROBIN, DRAWN + 1])
@pytest.mark.parametrize("op", OPS)
def test_same_bits_whatever_the_order_of_blocks_warps_and_lanes(host_ops, op, order):
    case = small_case(op)
    first, second = (outputs(case, getattr(host_ops(32, o), op), case.make()) for o in (DESCENDING, order))
    assert all(same_bits(value, second[name]) for name, value in first.items())
    assert judge(case, first, wanted(case, case.make())).ok


@pytest.mark.parametrize("op", OPS)
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


def test_memory_is_copied_only_where_it_does_not_fit() -> None:
    values = torch.zeros(33)
    assert _tensor(values, torch.float32, align=16).data_ptr() == values.data_ptr()
    moved = _tensor(values[1:], torch.float32, align=16)
    assert (moved.data_ptr() % 16, moved.data_ptr() == values[1:].data_ptr()) == (0, False)
    assert _tensor(values[1:], torch.float32).data_ptr() == values[1:].data_ptr()


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
    path = build(gxx(64, checked=True), cache_dir)
    check_warp(path, 0)
    monkeypatch.setattr(open_library(path), "ssd_device_warp", lambda device: 32, raising=False)
    with pytest.raises(MachineError, match="built for 64 lanes a warp, accelerator 0 has 32"):
        check_warp(path, 0)


@pytest.mark.parametrize(
    ("follows", "error", "words"),
    [
        (0, 0, "a checked host build follows fewer than 2 tensors: raise MOST_TENSORS in csrc/shadow.h"),
        (1, 7, "kernel mine of lib.so failed: error 7, words of 7"),
    ],
)
def test_a_launch_that_fails_is_named(follows: int, error: int, words: str) -> None:
    library = SimpleNamespace(
        _name="lib.so",
        mine=lambda *arguments: error,
        ssd_host_tensors=lambda *told: follows,
        ssd_error_text=lambda number: f"words of {number}".encode(),
    )
    with pytest.raises(MachineError) as refusal:
        _Kernels(library).call("mine", torch.zeros(2), 3, torch.zeros(1), None)
    assert str(refusal.value) == words


def test_an_accelerator_that_is_absent_is_named(cache_dir, monkeypatch):
    path = build(gxx(64, checked=True), cache_dir)
    monkeypatch.setattr(open_library(path), "ssd_device_warp", lambda device: -7, raising=False)
    monkeypatch.setattr(open_library(path), "ssd_error_text", lambda number: b"error %d" % number, raising=False)
    with pytest.raises(MachineError, match=r"^no accelerator 3: error 7$"):
        check_warp(path, 3)


# --- broken kernels -------------------------------------------------------------------------------------------------


@pytest.fixture
def mutate(tmp_path):
    """(file, old, new, warp, checked) -> the ops of a copy of the sources in which `old`, found once, became `new`."""

    def make(file, old, new, *, warp=64, checked=False):
        copy = tmp_path / "csrc"
        if not copy.exists():
            shutil.copytree(CSRC, copy)
            text = (copy / file).read_text()
            assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
            (copy / file).write_text(text.replace(old, new))
        return ops_of(build(gxx(warp, ("-O0",), checked=checked), tmp_path, copy))

    return make


def test_a_kernel_that_assumes_32_lanes_passes_with_32_and_fails_with_64(mutate):
    mutation = ("block.h", "int delta = WARP / 2", "int delta = 16")
    assert failures("loss", mutate(*mutation, warp=32), quick_cases("loss")) == []
    assert failures("loss", mutate(*mutation, warp=64), quick_cases("loss"))


BARRIER = (
    "block.h",
    "partial[threadIdx.x / WARP] = value;\n    __syncthreads();",
    "partial[threadIdx.x / WARP] = value;",
)


def test_a_missing_barrier_is_named_in_every_order_and_changes_results_in_some(mutate):
    checked, plain = mutate(*BARRIER, checked=True), mutate(*BARRIER)
    case = small_case("loss")
    for order in (ASCENDING, DESCENDING, ROUND_ROBIN, DRAWN):
        open_library(Path(checked.loss.__self__.library._name)).ssd_host_order(order)
        with pytest.raises(MachineError, match=rf"kernel loss_images<T>, .*({RACE}|{NOT_WRITTEN})"):
            checked.loss(*case.make())
    found = []
    for order in (ASCENDING, DESCENDING):
        open_library(Path(plain.loss.__self__.library._name)).ssd_host_order(order)
        found += failures("loss", plain, quick_cases("loss"))
    assert found


def test_a_barrier_that_some_threads_never_reach_is_an_error_and_not_a_hang(mutate):
    ops = mutate(
        "loss.cu", "count = block_reduce(count, Sum());", "if (threadIdx.x > 7) count = block_reduce(count, Sum());"
    )
    inputs = next(case for case in cases_of("loss") if case.quick).make()
    for _ in range(2):  # the second launch finds no trace of the first one's threads
        with pytest.raises(MachineError, match=r"ssd_loss_forward.*wait at different barriers"):
            ops.loss(*inputs)
    assert failures("encode", ops, quick_cases("encode")) == []


# One kernel that does what its argument says: the words of every bad access, and the accesses that are none.
ACCESSES = """
#include "block.h"
enum { %s };
__global__ void access(int* out, const int* in, int what) {
    __shared__ unsigned shared[BLOCK];
    int me = threadIdx.x, next = (me + 1) % BLOCK, block = blockIdx.x;
    if (what == UNWRITTEN) out[block * BLOCK + me] = shared[me];
    shared[me] = in[me];
    if (what != READS_AFTER) __syncthreads();
    int value = shared[next];
    if (what != WRITES_AFTER) __syncthreads();
    if (what == ADDS || what == ADDS_AND_READS) atomicAdd(&shared[0], 1u);
    if (what == ADDS_AND_READS) value = shared[0];
    if (what != WRITES_AFTER) __syncthreads();
    shared[me] = value;
    int at = what == BLOCKS_WRITE ? me : block * BLOCK + me;
    out[at] = value;
    if (what == BLOCKS_READ) value = out[(block * BLOCK + me + BLOCK) % (2 * BLOCK)];
    if (what == BEYOND) out[2 * BLOCK + me] = value;
    if (what == BEFORE) value = in[-1 - me];
    if (what == STACK) value = in[reinterpret_cast<const int*>(&value) - in];
    if (value < 0) out[block * BLOCK + me] = value;
}
extern "C" int run(int* out, const int* in, int what) { return LAUNCH(access, 2, 1, nullptr, out, in, what); }
"""
RACE = r"(reads|writes) .* that another thread (wrote|read), with no barrier between: a race"
NOT_WRITTEN = "reads shared memory that no thread of its block has written"
SAID = {
    "NOTHING": None, "READS_AFTER": f"{RACE}|{NOT_WRITTEN}", "WRITES_AFTER": RACE,
    "BLOCKS_WRITE": r"writes element \d+ of tensor 1 of the call that another thread wrote, .*: a race",
    "BLOCKS_READ": RACE, "ADDS": None, "ADDS_AND_READS": RACE, "UNWRITTEN": NOT_WRITTEN,
    "BEYOND": "writes memory outside of every tensor of the call",
    "BEFORE": "reads memory outside of every tensor of the call", "STACK": None,
}  # fmt: skip
"""What the kernel is asked to do -> what is said, None where nothing is wrong. The order says what is first."""


def test_every_bad_access_is_named_whatever_the_order_and_no_good_one(tmp_path):
    shutil.copytree(CSRC, tmp_path / "csrc", ignore=shutil.ignore_patterns("*.cu"))
    (tmp_path / "csrc" / "access.cu").write_text(ACCESSES.replace("%s", ", ".join(SAID)))
    shutil.copy(CSRC / "runtime.cu", tmp_path / "csrc")
    library = open_library(build(gxx(32, checked=True), tmp_path, tmp_path / "csrc"))
    kernels = SimpleNamespace(library=library)
    out, given = torch.zeros(1024, dtype=torch.int32)[:512], torch.ones(512, dtype=torch.int32)[256:]
    for number, (what, words) in enumerate(SAID.items()):
        for order in (ASCENDING, DESCENDING, ROUND_ROBIN, DRAWN):
            library.ssd_host_order(order)
            _Kernels._allow(kernels, [out, given])
            error = library.run(address(out), address(given), number)
            assert (error != 0) == (words is not None), (what, order, library.ssd_error_text(error))
            if words:
                said = library.ssd_error_text(error).decode()
                assert re.fullmatch(rf"kernel access, thread \d+ of block \([01], 0\) ({words})", said), (what, said)


# --- every line, and no stray access --------------------------------------------------------------------------------

RUN_ALL = """
import sys
import torch
from pathlib import Path
from ssd.conformance.cases import cases_of
from ssd.conformance.compare import outputs
from ssd.vendor.csrc.build import open_library
from ssd.vendor.csrc.ops import check_warp, ops_of
from ssd.vendor.csrc.overrides import OPS

torch.set_num_threads(1)
path = Path(sys.argv[1])
ops = ops_of(path)
check_warp(path, 0)
for op in OPS:
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
    kernels = {
        where: count
        for where, count in counts.items()
        if (CSRC / where[0]).exists() and where[0] not in ("host.h", "shadow.h")
    }
    assert {where[0] for where in kernels} >= {f"{op}.cu" for op in OPS} | {"block.h", "boxes.h", "numbers.h"}
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
