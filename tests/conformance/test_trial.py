"""Cheats: overrides that are right once, here, or today. Each is caught by name, or is legitimate and named."""

from __future__ import annotations

import ctypes
import platform
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ssd.conformance import run
from ssd.conformance.case import Case
from ssd.conformance.cases import batch_cases, cases_of, random_cases, small_case, timed_case
from ssd.conformance.compare import Mismatch, Outcome, compare, judge, outputs, to_device, wanted
from ssd.conformance.exact import exact_loss
from ssd.conformance.inputs import altered
from ssd.conformance.reference import calls_of_reference, reference
from ssd.conformance.run import REPEATED, Plan
from ssd.conformance.trial import repeated, same_bits, trial
from ssd.ops import OP_NAMES, REFERENCE
from ssd.vendor import Override

CPU = torch.device("cpu")
REDUCED = "allow_bf16_reduced_precision_reduction"
TOWARD_ZERO = 0xC00 if platform.machine() == "x86_64" else 0xC00000
"""FE_TOWARDZERO of C's fenv.h, on x86-64 and on 64-bit Arm."""


def caught(op: str, function, words: str, cases=None) -> None:
    """Some case turns red, and says so in these words; a number that is off is "off"."""
    said = []
    for case in cases or [small_case(op)]:
        try:
            said.append("" if trial(case, function, CPU).ok else "off")
        except Mismatch as mismatch:
            said.append(str(mismatch))
    assert any(words in one for one in said), said


@pytest.mark.parametrize("op", OP_NAMES)
def test_the_reference_passes_and_is_named(op: str) -> None:
    reference = getattr(REFERENCE, op)
    for case in [small_case(op), *random_cases(op, 5)]:
        outcome = trial(case, reference, CPU)
        assert outcome.ok
        assert outcome.error == 0 or case.dtype != torch.float32  # a short format is held to what is not rounded yet
    for function in (reference, lambda *inputs, **options: reference(*inputs, **options)):
        assert named_in(small_case(op), function)


def named_in(case, function) -> bool:
    """Whether a case's row says that the function calls the reference."""
    row = run._run_case(Override(case.op, "mine", "", lambda means: function, list), "", case, function, CPU)
    return "calls the reference op itself" in row.note


def test_another_implementation_is_not_named_the_reference() -> None:
    def none_at_all(boxes, labels, defaults, **options):
        return boxes.new_zeros(len(boxes), 4, len(defaults.xywh)), labels.new_zeros(len(boxes), len(defaults.xywh))

    with calls_of_reference("encode") as calls:
        outputs(small_case("encode"), none_at_all, small_case("encode").make())
        wanted(small_case("encode"), small_case("encode").make())
    assert not calls


def test_the_reference_is_named_in_each_row_that_it_made() -> None:
    def own_for_small(images, draws, **options):
        return REFERENCE.augment(images, draws, **options) if len(images) > 2 else own(images, draws, **options)

    own = reference("augment")
    assert [named_in(case, own_for_small) for case in batch_cases("augment", 3, False)[:3]] == [False, False, True]


def test_the_reference_is_named_from_another_thread() -> None:
    def elsewhere(*inputs, **options):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(REFERENCE.encode, *inputs, **options).result()

    assert named_in(small_case("encode"), elsewhere)
    assert named_in(small_case("loss"), lambda *i, **o: REFERENCE.loss(*i, **o))
    assert REFERENCE.encode.__code__.co_name == "encode"


def test_a_result_that_is_kept_by_address_is_off() -> None:
    kept = {}

    def by_address(boxes, labels, defaults, **options):
        if boxes.data_ptr() not in kept:
            kept[boxes.data_ptr()] = REFERENCE.encode(boxes, labels, defaults, **options)
        return tuple(value.clone() for value in kept[boxes.data_ptr()])

    caught("encode", by_address, "off")


def test_a_result_that_is_kept_by_content_is_overwritten_by_its_owner() -> None:
    kept = {}

    def by_content(boxes, labels, defaults, **options):
        key = boxes.numpy().tobytes()
        if key not in kept:
            kept[key] = REFERENCE.encode(boxes, labels, defaults, **options)
        return kept[key]

    caught("encode", by_content, "the same inputs gave another")


def test_outputs_in_one_buffer_of_the_override_change_while_they_are_held() -> None:
    buffer = []

    def one_buffer(boxes, labels, defaults, **options):
        found = REFERENCE.encode(boxes, labels, defaults, **options)
        if not buffer:
            buffer.extend(value.clone() for value in found)
        for mine, value in zip(buffer, found, strict=True):
            mine.copy_(value)
        return tuple(buffer)

    caught("encode", one_buffer, "they share memory")


def test_inputs_that_are_written_to() -> None:
    def writes(images, draws, **options):
        found = REFERENCE.augment(images, draws, **options)
        images[-1, -1, -1, -1] ^= 1
        return found

    caught("augment", writes, "wrote to its inputs")


def test_inputs_that_are_written_to_and_mended_later_are_no_inputs_of_ours() -> None:
    def writes_draws(images, draws, **options):
        found = REFERENCE.augment(images, draws, **options)
        draws.factors[0, 0] += 1
        return found

    caught("augment", writes_draws, "wrote to its inputs")


def test_a_write_outside_of_the_output() -> None:
    def one_too_many(boxes, labels, defaults, **options):
        found = REFERENCE.encode(boxes, labels, defaults, **options)
        offsets = torch.empty(found[0].shape)
        offsets.copy_(found[0])
        beyond = offsets.as_strided((offsets.numel() + 1,), (1,), offsets.storage_offset())
        beyond[-1] = 7.0
        return offsets, found[1]

    caught("encode", one_too_many, "outside of a tensor")


def test_memory_that_nobody_wrote() -> None:
    def unwritten(boxes, labels, defaults, **options):
        offsets, targets = REFERENCE.encode(boxes, labels, defaults, **options)
        found = torch.empty(targets.shape, dtype=torch.int64)
        found[:, :-1] = targets[:, :-1]
        return offsets, found

    caught("encode", unwritten, "the same inputs gave another labels")


def test_right_for_contiguous_inputs_only() -> None:
    def dense(boxes, labels, defaults, **options):
        flat = torch.empty(0)
        flat.set_(boxes.untyped_storage(), boxes.storage_offset(), boxes.shape)
        return REFERENCE.encode(flat, labels, defaults, **options)

    assert trial(small_case("encode"), dense, CPU).ok
    caught("encode", dense, "off", [case for case in cases_of("encode") if "non-contiguous" in case.name])


@pytest.mark.parametrize("batch", [1, 2, 33, 130, 200])
def test_wrong_at_one_batch_only(batch: int) -> None:
    def wrong(locations, logits, offsets, labels, **options):
        return REFERENCE.loss(locations, logits, offsets, labels, **options) * (1.1 if len(logits) == batch else 1)

    red = [case.name for case in batch_cases("loss", 200, False) if not compare(case, wrong, CPU).ok]
    words = ", the configs' largest" * (batch == 200)
    assert red == [f"batch {batch}, small images and few default boxes{words}"]


def test_right_at_the_timed_shape_only() -> None:
    timed = timed_case("loss").make()[1].shape

    def right_there(locations, logits, offsets, labels, **options):
        found = REFERENCE.loss(locations, logits, offsets, labels, **options)
        return found if logits.shape == timed else found * 1.01

    for case in (small_case("loss"), *batch_cases("loss", 1, full=True)[:2]):
        assert case.make()[1].shape != timed
        assert not compare(case, right_there, CPU).ok


def test_right_on_one_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    @contextmanager
    def side_stream(abilities):
        entered.append(abilities.device)
        yield
        entered.pop()

    monkeypatch.setattr("ssd.conformance.trial.Abilities.side_stream", side_stream)

    def default_stream_only(*inputs, **options):
        return REFERENCE.loss(*inputs, **options) * (1.01 if entered else 1)

    caught("loss", default_stream_only, "the same inputs gave another loss")


def test_right_the_first_time_only() -> None:
    calls = []

    def once(*inputs, **options):
        calls.append(1)
        return REFERENCE.loss(*inputs, **options) * (1 if len(calls) == 1 else 1.01)

    caught("loss", once, "the same inputs gave another loss")


def test_a_result_that_depends_on_the_call_before() -> None:
    last = [torch.zeros(3)]

    def carries(*inputs, **options):
        found = REFERENCE.loss(*inputs, **options) + 1e-7 * last[0]
        last[0] = found.detach()
        return found

    caught("loss", carries, "the same inputs gave another loss")


@pytest.mark.parametrize("number", [5, 200])
def test_wrong_once_in_200_calls(number: int) -> None:
    calls = []

    def rarely(*inputs, **options):
        calls.append(1)
        return REFERENCE.loss(*inputs, **options) * (1 + 1e-6 * (len(calls) == number))

    with pytest.raises(Mismatch, match=f"call {number} of the same inputs gave another loss"):
        repeated(small_case("loss"), rarely, CPU, 200)


def test_half_precision_where_float32_is_promised() -> None:
    def half(images, draws, **options):
        return REFERENCE.augment(images, draws, **options).half().float()

    caught("augment", half, "off")

    def half_loss(locations, logits, *rest, **options):
        return REFERENCE.loss(locations.half(), logits.half(), *rest, **options)

    caught("loss", half_loss, "off")
    caught("augment", lambda *a, **k: REFERENCE.augment(*a, **k).half(), "float16, not")


@pytest.mark.parametrize(
    ("disturb", "words"),
    [
        (lambda: torch.rand(1), "torch's random state"),
        (random.random, "Python's random state"),
        (lambda: torch.set_float32_matmul_precision("medium"), "matrix products"),
        (lambda: torch.set_default_dtype(torch.float64), "default dtype"),
        (lambda: torch.set_flush_denormal(True), "small numbers are flushed to 0"),
        (
            lambda: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
            "cuBLAS's switch",
        ),
        (lambda: np.seterr(over="raise"), "numpy's treatment of errors"),
        (lambda: ctypes.CDLL(None).fesetround(TOWARD_ZERO), "the direction of rounding"),
        (lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark), "cuDNN's switches"),
    ],
)
def test_global_state_that_is_changed(disturb, words: str) -> None:
    def changes(*inputs, **options):
        found = REFERENCE.loss(*inputs, **options)
        disturb()
        return found

    try:
        caught("loss", changes, words)
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_default_dtype(torch.float32)
        torch.set_flush_denormal(False)
        torch.backends.cudnn.benchmark = False
        setattr(torch.backends.cuda.matmul, REDUCED, True)
        np.seterr(over="warn")
        ctypes.CDLL(None).fesetround(0)


def test_a_value_that_is_read_on_the_host() -> None:
    def reads(locations, logits, offsets, labels, **options):
        if bool((labels > 0).any()):
            return REFERENCE.loss(locations, logits, offsets, labels, **options)
        return logits.sum((1, 2)) * 0

    caught("loss", reads, "a CUDA graph cannot hold this op")


@pytest.mark.parametrize(
    ("op", "ignored"),
    [
        ("loss", "negative_ratio"), ("encode", "criteria"), ("encode", "epsilon"), ("detect", "score_threshold"),
        ("detect", "nms_overlap"), ("detect", "max_candidates"), ("detect", "max_detections"),
        ("augment", "channels"), ("augment", "channels_last"), ("augment", "dtype"),
    ],
)  # fmt: skip
def test_an_argument_that_is_ignored(op: str, ignored: str) -> None:
    def deaf(*inputs, **options):
        return getattr(REFERENCE, op)(*inputs, **{key: value for key, value in options.items() if key != ignored})

    def passes(case) -> bool:
        try:
            return compare(case, deaf, CPU).ok
        except Mismatch:
            return False

    assert not all(passes(case) for case in cases_of(op) + random_cases(op, 3) if ignored in case.options)


def test_gradients_are_held_to_float64_in_every_precision() -> None:
    cases = [case for case in cases_of("loss") if case.exact]
    assert {case.make()[1].dtype for case in cases} == {torch.float32, torch.bfloat16, torch.float16}
    for case in cases:
        assert compare(case, REFERENCE.loss, CPU).ok
    inputs = small_case("loss").make()
    exact, plain = exact_loss(*inputs), wanted(small_case("loss"), inputs)
    assert all(torch.allclose(exact[name], plain[name], rtol=1e-4, atol=1e-6) for name in exact)


@pytest.mark.parametrize("op", OP_NAMES)
def test_altered_inputs_have_the_same_shapes_and_other_results(op: str) -> None:
    case = small_case(op)
    reference = getattr(REFERENCE, op)
    first, other = (outputs(case, reference, inputs) for inputs in (case.make(), altered(op, case.make())))
    assert {name: value.shape for name, value in first.items()} == {name: v.shape for name, v in other.items()}
    assert not all(same_bits(first[name], other[name]) for name in first)


def test_random_cases_are_those_of_their_seed() -> None:
    names = [[case.name for op in OP_NAMES for case in random_cases(op, seed)] for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("op", OP_NAMES)
def test_a_plan_holds_every_batch_the_random_cases_and_the_200_calls(op: str) -> None:
    for hardware, largest in ((False, 256), (True, 456)):
        names = [case.name for case, _ in Plan(seed=4).tries(op, 456, hardware)]
        batches = {int(name.split()[1].strip(",")) for name in names if name.startswith("batch")}
        assert batches == {1, 2, 33, 130, largest}
        words = "full size, the configs' largest" if hardware else "456, the configs' largest, on hardware only"
        assert sum(name.endswith(words) for name in names) == 1
        assert sum(name.startswith("random") for name in names) == 8
        assert REPEATED in names
    [(alone, _)] = Plan(case=REPEATED).tries(op, 1, False)
    assert alone.name == REPEATED


def test_on_another_device_a_tensor_lies_as_it_did_and_in_no_more_memory() -> None:
    """A device that has shapes alone is enough to see it."""
    value = torch.arange(40.0).view(4, 10)[1:3, 1::3]
    (moved,) = to_device((value,), torch.device("meta"))
    assert (moved.shape, moved.stride(), moved.storage_offset()) == ((2, 3), (10, 3), 11)
    assert moved.untyped_storage().nbytes() == 4 * (11 + 1 + 10 + 2 * 3)
    same = to_device((value,), value.device)[0]
    assert same.data_ptr() == value.data_ptr()


def judged(
    name: str, mine: Tensor, right: Tensor, allowed: float | None, dtype: torch.dtype = torch.float32
) -> Outcome:
    """What is said of one output of images whose losses are finite, and right."""
    loss = torch.ones(len(right))
    case = Case("loss", "by hand", tuple, tolerance={"loss": 1.0} | ({} if allowed is None else {name: allowed}))
    found = judge(replace(case, dtype=dtype), {"loss": loss, name: mine}, {"loss": loss, name: right})
    assert found.output == name
    return found


HALF, BRAIN = torch.float16, torch.bfloat16
TINY = 2.0**-23 + (2e-5 * 2.0**-23 + 2.0**-14 * 2.0**-10) / 2.0**-11
"""What a distance is divided by where the largest gradient in float16 is 2**-23: nearly all of it is rounding."""


@pytest.mark.parametrize(
    ("name", "mine", "right", "allowed", "dtype", "error"),
    [
        ("count", [1, 2, 3], [1, 0, 0], None, torch.float32, 2),  # whole numbers: how many differ
        ("images", [10, 20], [10.5, 19.25], 0.5, torch.uint8, 0.75),  # beside what they were rounded from
        ("scores", [1.0, 0.75], [4.0, 0.25], 0.5, torch.float32, 0.75),  # 3 of 4, and 0.5 of at least 1
        ("scores", [3.5, 0.75], [4.0, 0.25], 0.5, torch.float32, 0.5),
        ("grad_logits", [[[3.0, -8.0]], [[0.5, 0.375]]], [[[2.0, -8.0]], [[0.5, 0.25]]], 0.1, torch.float32, 0.25),
        ("grad_logits", [[[4.0, -8.0]], [[0.5, 0.25]]], [[[2.0, -8.0]], [[0.5, 0.25]]], 0.1, torch.float32, 0.25),
        ("images", [[2.03125]], [[2.0]], 2.0**-8, BRAIN, 0.03125 / (2 + 2e-5 * 2 * 2**8)),  # value by value
        ("images", [[0.265625]], [[0.25]], 2.0**-8, BRAIN, 0.015625 / (0.25 + 2e-5 * 2**8)),
        ("grad_logits", [[[2.0**-24]]], [[[2.0**-23]]], 2.0**-11, HALF, 2.0**-24 / TINY),
        ("grad_logits", [[[0.0]]], [[[2.0**-23]]], 2.0**-11, HALF, 2.0**-23 / TINY),
        ("grad_logits", [[[0.0]]], [[[1.0]]], 2.0**-8, BRAIN, 1 / (1 + 2e-5 * 2**8)),
        ("scores", [torch.inf, 1.0, torch.nan], [torch.inf, 1.5, torch.nan], 0.5, torch.float32, 1 / 3),
    ],
)
def test_how_far_an_output_is_off(name: str, mine: list, right: list, allowed: float, dtype: torch.dtype, error: float):
    kind = dtype if name in ("images", "grad_logits") else None
    found = judged(name, torch.tensor(mine, dtype=kind), torch.tensor(right), allowed, dtype)
    assert (found.error, found.tolerance) == (pytest.approx(error, rel=1e-6), allowed or 0.0)


@pytest.mark.parametrize(
    ("name", "mine", "right", "words"),
    [
        ("grad_logits", [[[0.0]]], [[[2.0**-22]]], ""),
        ("grad_logits", [[[2.0**-24]]], [[[2.0**-21]]], ""),
        ("grad_logits", [[[0.0]]], [[[2.0**-21]]], "is 0 where the reference's is not: small gradients are lost"),
        ("scores", [torch.inf], [1.0], "is not finite in other places"),
        ("scores", [1.0], [torch.inf], "is not finite in other places"),
        ("scores", [torch.nan], [torch.inf], "is infinite where the reference's is not a number, or of another sign"),
        ("scores", [-torch.inf], [torch.inf], "or of another sign"),
        ("scores", [1.0, 1.0], [1.0], r"scores is \(2,\) torch.float32, not \(1,\)"),
        ("count", [1.0], [1], "count is .* torch.float32, not .* torch.int64"),
    ],
)
def test_what_no_tolerance_covers(name: str, mine: list, right: list, words: str) -> None:
    dtype = HALF if name == "grad_logits" else None
    given = name, torch.tensor(mine, dtype=dtype), torch.tensor(right), 1.0, HALF
    if not words:
        assert judged(*given).error > 0
        return
    with pytest.raises(Mismatch, match=words):
        judged(*given)


def test_the_worst_output_is_the_one_that_takes_most_of_its_tolerance() -> None:
    """Gradients of an image whose loss is not finite are nobody's promise."""
    case = Case("loss", "by hand", tuple, tolerance={"loss": 1.0, "grad_logits": 0.125})
    right = {"loss": torch.tensor([1.0, torch.inf]), "grad_logits": torch.ones(2, 1, 1)}
    mine = {"loss": torch.tensor([1.5, torch.inf]), "grad_logits": torch.tensor([[[1.25]], [[99.0]]])}
    assert judge(case, mine, right) == Outcome("grad_logits", 0.25, 0.125)
    none = {**right, "loss": torch.full((2,), torch.inf)}
    assert judge(case, none, none) == Outcome("loss", 0.0, 1.0)
    assert (Outcome("", 0.5, 0.25).share(), Outcome("", 0.0, 0.0).share()) == (2.0, 0.0)
    assert [Outcome("", error, 0.5).ok for error in (0.5, 0.6)] == [True, False]


def backward_of(case: Case) -> tuple[dict[str, Tensor], list[list[float]], int]:
    """The outputs of a loss that is the sum of its inputs, what each backward pass was given, and the calls."""
    given: list[list[float]] = []
    calls: list[int] = []

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(context: object, locations: Tensor, logits: Tensor) -> Tensor:
            context.save_for_backward(locations, logits)  # type: ignore[attr-defined]
            return locations.sum((1, 2)) + logits.sum((1, 2))

        @staticmethod
        def backward(context: object, grad: Tensor) -> tuple[Tensor, ...]:
            given.append(grad.tolist())
            return tuple(grad[:, None, None].expand_as(one) for one in context.saved_tensors)  # type: ignore[attr-defined]

    def total(locations: Tensor, logits: Tensor, *targets: Tensor, **options: object) -> Tensor:
        calls.append(1)
        return Sum.apply(locations, logits)

    return outputs(case, total, case.make()), given, len(calls)


@pytest.mark.parametrize(
    ("gradients", "names", "given", "calls"),
    [
        ("of both", ["loss", "grad_locations", "grad_logits"], [[0.5, 1.0]], 1),
        ("of both, twice", ["loss", "grad_locations", "grad_logits"], [[1.0, 2.0], [0.5, 1.0]], 1),
        ("of both, after another call", ["loss", "grad_locations", "grad_logits"], [[0.5, 1.0]], 2),
        ("of locations", ["loss", "grad_locations"], [[0.5, 1.0]], 1),
        ("of logits", ["loss", "grad_logits"], [[0.5, 1.0]], 1),
        ("of none", ["loss"], [], 1),
    ],
)
def test_which_gradients_are_taken_and_when(gradients: str, names: list[str], given: list, calls: int) -> None:
    def make() -> tuple[Tensor, ...]:
        return torch.zeros(2, 4, 3), torch.zeros(2, 5, 3), torch.zeros(2, 4, 3), torch.ones(2, 3, dtype=torch.int64)

    found, weights, times = backward_of(Case("loss", "by hand", make, gradients=gradients))
    assert (list(found), weights, times) == (names, given, calls)
    assert not found["loss"].requires_grad
    _, weights, _ = backward_of(Case("loss", "by hand", make, gradients=gradients, weights=(0.25,)))
    assert weights == [[one[0] / 2] * 2 for one in given], "one weight is for all images"


@pytest.mark.parametrize(
    ("op", "wrap", "words"),
    [
        ("encode", lambda found: list(found), "the result is of type list, not tuple"),
        ("crop", lambda found: (found,), "the result is of type tuple, not Tensor"),
        ("augment", lambda found: found.requires_grad_(), "the result asks for gradients"),
    ],
)
def test_a_result_of_another_kind(op: str, wrap: Callable, words: str) -> None:
    case = small_case(op)
    with pytest.raises(Mismatch, match=words):
        outputs(case, lambda *inputs, **options: wrap(getattr(REFERENCE, op)(*inputs, **options)), case.make())


def test_offsets_in_another_layout_are_off() -> None:
    def turned(*inputs, **options):
        offsets, labels = REFERENCE.encode(*inputs, **options)
        return offsets.transpose(1, 2).contiguous().transpose(1, 2), labels

    assert compare(small_case("encode"), turned, CPU) == Outcome("layout", 1.0, 0.0)
