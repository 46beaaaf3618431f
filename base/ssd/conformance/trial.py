"""One case, tried so that an override cannot pass by luck or by memory.

The override is called three times at the same addresses: with the case's inputs, with other values in the same memory,
and with the case's inputs again. Each result is held to the reference, and around each call is looked at:

- inputs, which must be the same bytes afterwards, and the memory around every tensor (`ssd.conformance.memory`);
- the result of the first call, which must not change while the second runs. The third must not depend on it: it is
  overwritten first, and memory is filled with another byte;
- the third result, which must be the first one bit for bit; on a device it runs on a stream of its own;
- random generators and torch's global switches, which an op leaves alone;
- operations that a CUDA graph cannot hold, in the ops of a training step (`ssd.compute.capture`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ssd.compute.capture import CaptureError, CaptureGuard
from ssd.compute.device import Abilities
from ssd.conformance.case import Case
from ssd.conformance.compare import Mismatch, Outcome, judge, outputs, tensors_of, to_device, wanted
from ssd.conformance.inputs import altered, each_tensor
from ssd.conformance.memory import Memory
from ssd.conformance.state import global_state

__all__ = ["repeated", "trial", "unguarded"]

POISONS = (0xFF, 0x55)
"""Bytes that new memory is filled with, in the first two calls and in the last: as floats not a number, and 1.5e13.

Integers are 0 in the second call: the number of a box or a class that exists, where -1 may stand for none.
"""
CAPTURED = ("augment", "encode", "loss", "crop")
"""Ops that a CUDA graph may hold: they never wait for the device. An evaluation may, and so `detect` may."""


def trial(case: Case, function: Callable[..., Any], device: torch.device) -> Outcome:
    """The worst output of the three calls. Raises Mismatch where something other than a number is wrong."""
    with torch.inference_mode(case.inference):
        return _three_calls(case, function, device)


def _three_calls(case: Case, function: Callable[..., Any], device: torch.device) -> Outcome:
    memory = Memory(POISONS[0])
    inputs = each_tensor(to_device(case.make(), device), memory.place)
    first = _call(case, function, inputs, device, memory)
    outcome = judge(case, first, wanted(case, case.make()))
    held = {name: value.clone() for name, value in first.items()}

    other = altered(case.op, case.make())
    _write(inputs, to_device(other, device))
    second = _call(case, function, inputs, device, Memory(0, floats=POISONS[0]))
    for name, value in held.items():
        if not same_bits(first[name], value):
            raise Mismatch(f"{name} of a call changed while the next call ran: they share memory")
    outcome = max(outcome, judge(case, second, wanted(case, other)), key=Outcome.share)

    for value in first.values():  # a caller may do as it likes with what it was given
        value.zero_()
    _write(inputs, to_device(case.make(), device))
    again = Memory(POISONS[1])
    Abilities(device).synchronize()  # the inputs are written for another stream too
    with Abilities(device).side_stream():  # a kernel must run on the current stream
        third = _call(case, function, inputs, device, again)
    _same_again(held, third, "the same inputs gave")
    memory.require_intact()
    return outcome


def repeated(case: Case, function: Callable[..., Any], device: torch.device, times: int) -> Outcome:
    """Call the op `times` times with the same inputs; every result must be the first one, bit for bit."""
    inputs = to_device(case.make(), device)
    first = outputs(case, function, inputs)
    outcome = judge(case, first, wanted(case, case.make()))
    for number in range(2, times + 1):
        _same_again(first, outputs(case, function, inputs), f"call {number} of the same inputs gave")
    return outcome


def unguarded(case: Case, function: Callable[..., Any], device: torch.device) -> Outcome:
    """The worst output of one call in memory without guards, filled with "not a number" and with large integers.

    For a means that checks each access against the memory of tensors. A guard would be a part of that memory, and so
    hide an access just beyond a tensor.
    """
    memory = Memory(POISONS[1], guard=0, floats=POISONS[0])
    inputs = each_tensor(to_device(case.make(), device), memory.place)
    with memory:
        found = outputs(case, function, inputs)
    return judge(case, found, wanted(case, case.make()))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors, of any shape and dtype, hold the same bytes. So NaN equals itself, and 0 is not -0."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    # A single element is contiguous with any stride, and torch refuses to look at the bytes of most.
    flat = (x.contiguous().as_strided((x.numel(),), (1,)) for x in (a, b))
    return torch.equal(*(x.view(torch.uint8) for x in flat))


def _call(
    case: Case, function: Callable[..., Any], inputs: tuple[Any, ...], device: torch.device, memory: Memory
) -> dict[str, Tensor]:
    """Outputs of one call, with everything around it looked at."""
    before, state = [value.clone() for value in tensors_of(inputs)], global_state(device)
    guard: AbstractContextManager[Any] = CaptureGuard() if case.op in CAPTURED else nullcontext()
    try:
        with memory:
            found = outputs(case, function, inputs, around=guard)
    except CaptureError as error:
        raise Mismatch(f"a CUDA graph cannot hold this op: {error}") from error
    Abilities(device).synchronize()
    if not all(same_bits(a, b) for a, b in zip(tensors_of(inputs), before, strict=True)):
        raise Mismatch("the override wrote to its inputs")
    elsewhere = [name for name, value in found.items() if name != "layout" and value.device.type != device.type]
    if elsewhere:
        raise Mismatch(f"{elsewhere[0]} is on {found[elsewhere[0]].device}, not on {device}")
    changed = [name for name, value in global_state(device).items() if value != state[name]]
    if changed:
        raise Mismatch(f"the override changed {', '.join(changed)}")
    memory.require_intact()
    return found


def _same_again(first: dict[str, Tensor], second: dict[str, Tensor], words: str) -> None:
    for name, value in first.items():
        if not same_bits(value, second[name]):
            raise Mismatch(f"{words} another {name}: a race, memory nobody wrote, or an earlier call's state")


def _write(inputs: tuple[Any, ...], values: tuple[Any, ...]) -> None:
    """Put other values into the same memory, so that torch does not count a change: no version tells of it."""
    for mine, new in zip(tensors_of(inputs), tensors_of(values), strict=True):
        mine.data.copy_(new)
