"""What a torch device must have to train, and what it may have: the one place that asks.

A device must have tensors of float32, int64, uint8 and bool, copies to and from the host, and torch's ops on them. Its
module of torch (torch.cuda, torch.xpu, ...) may be empty, or not there at all. All else is an ability that a device may
have. Each is asked for once, by trying it, and the last column happens on a device that lacks it:

ability           what is tried                                        without it
float64           a tensor of it                                       sums that need it are made on the host
pinned_memory     page-locked memory of the host                       plain memory, and copies that wait
timed_events      torch.<type>.Event with its time                     a loss is waited for where it is summed
channels_last     a tensor of this layout                              the key nhwc is refused
autocast          mixed precision in bf16 or fp16                      the key precision is refused
bfloat16          a sum of such tensors                                allreduce_dtype = bf16 is refused
compiles          torch.compile                                        the key compile is refused
sync_batch_norm   the kernels of torch's SyncBatchNorm                 bn_group by plain torch, ten times the memory
select            torch.<type>.set_device                              tensors name their device, which is enough
synchronize       torch.<type>.synchronize                             a value is read back, which waits as well
name              torch.<type>.get_device_name                         "unknown"
free_bytes        torch.<type>.mem_get_info                            unknown, and nothing is refused for it
held_bytes        torch.<type>.memory_reserved                          unknown
peak_bytes        torch.<type>.max_memory_allocated                     unknown
side_stream       torch.<type>.Stream                                  the only stream there is
side_copies       streams that wait for each other's events            a batch is copied between two steps
random_state      torch.<type>.get_rng_state                           no state to look at

A vendor whose device answers otherwise than it works gives a subclass (`Vendor.abilities`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ssd.compute.precision import DTYPES, autocast
from ssd.errors import MachineError

__all__ = ["NEEDED_DTYPES", "UNKNOWN", "Abilities", "device_count", "is_known", "select"]

NEEDED_DTYPES = (torch.float32, torch.int64, torch.uint8, torch.bool)
"""Types of the tensors of a step and an evaluation in float32."""
UNKNOWN = "unknown"


def _module(kind: str) -> ModuleType | None:
    """torch's module of a device type; None where it has none."""
    return getattr(torch, kind, None)


def is_known(kind: str) -> bool:
    """Whether torch knows this device type; many it knows once the library that registers them is imported."""
    try:
        torch.device(kind)
    except RuntimeError:
        return False
    return True


def device_count(kind: str) -> int:
    """Devices of a type that torch sees. Where its module cannot count: 1 if a tensor can be made there, else 0."""
    if not is_known(kind) or _answer(kind, "is_available") is False:
        return 0
    count = _answer(kind, "device_count")
    return int(_works(lambda: torch.empty(0, device=kind))) if count is None else int(count)


def select(kind: str, index: int) -> torch.device:
    """The device of this process, made torch's current one where the type has such a thing. MachineError where not."""
    if kind == "cpu":
        return torch.device(kind)
    try:
        if choose := getattr(_module(kind), "set_device", None):
            choose(index)
    except NotImplementedError:
        pass  # as good as absent
    except RuntimeError as error:
        raise MachineError(f"torch cannot choose the device {kind}:{index}: {error}") from error
    return torch.device(kind, index)


def _answer(kind: str, function: str, *arguments: Any) -> Any:
    """What a function of the type's module says; None where the module lacks it or cannot say."""
    try:
        return getattr(_module(kind), function)(*arguments)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return None


class Abilities:
    """What one device can do. See the table above."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def module(self) -> ModuleType | None:
        """torch's module of this type of device."""
        return _module(self.device.type)

    @property
    def is_host(self) -> bool:
        """Whether the device is the host itself: nothing is in flight, and nothing is copied."""
        return self.device.type == "cpu"

    @cached_property
    def float64(self) -> bool:
        """Whether it computes in float64."""
        return _works(lambda: torch.ones(1, device=self.device, dtype=torch.float64).sum().item())

    @cached_property
    def pinned_memory(self) -> bool:
        """Whether the host has page-locked memory for it, from which copies run beside other work."""
        return not self.is_host and _works(self._copy_pinned)

    def _copy_pinned(self) -> None:
        host = torch.ones(1, pin_memory=True)
        host.copy_(host.to(self.device, non_blocking=True), non_blocking=True)
        torch.zeros(1).pin_memory()

    @cached_property
    def timed_events(self) -> bool:
        """Whether its work can be marked by events that tell the time between them."""
        return not self.is_host and _works(lambda: self.seconds_between(self.event(), self.event()))

    def event(self) -> Any:
        """An event that marks the work given to the device so far."""
        event = self.module.Event(enable_timing=True)  # type: ignore[union-attr]
        event.record()
        return event

    def seconds_between(self, first: Any, second: Any) -> float:
        """Seconds of the device between two events. Waits until the second has happened."""
        second.synchronize()
        return float(first.elapsed_time(second)) / 1000

    @cached_property
    def channels_last(self) -> bool:
        """Whether it convolves tensors of this layout."""
        return _works(self._convolve_channels_last)

    def _convolve_channels_last(self) -> None:
        ones = torch.ones(2, 2, 3, 3, device=self.device).to(memory_format=torch.channels_last)
        torch.nn.functional.conv2d(ones, ones).sum().item()

    @cached_property
    def bfloat16(self) -> bool:
        """Whether it adds tensors of bfloat16, which gradients can be communicated as."""
        return _works(lambda: torch.ones(2, device=self.device).to(torch.bfloat16).add_(1).float().cpu())

    @cached_property
    def sync_batch_norm(self) -> bool:
        """Whether torch has the kernels of its SyncBatchNorm for it."""
        return _works(lambda: torch.batch_norm_stats(torch.ones(2, 2, 2, 2, device=self.device), 1e-5)[0].cpu())

    @cached_property
    def compiles(self) -> bool:
        """Whether torch.compile makes programs for it. It takes seconds to ask."""
        twice = torch.compile(lambda x: x + x, dynamic=False)
        return _works(lambda: twice(torch.ones(2, device=self.device)).cpu())

    def autocast(self, precision: str) -> bool:
        """Whether it multiplies in a precision of `ssd.compute.precision.DTYPES`, by torch's mixed precision."""
        return _works(lambda: self._multiply_in(precision))

    def _multiply_in(self, precision: str) -> None:
        ones = torch.ones(2, 2, device=self.device)
        with autocast(self.device, precision):
            product = ones @ ones
        if product.dtype != DTYPES[precision] or product.float().cpu()[0, 0] != 2:
            raise RuntimeError(f"mixed precision gave {product.dtype}")

    def synchronize(self) -> None:
        """Return when the device has done what it was given."""
        if not self.is_host and not _works(lambda: self.module.synchronize()):  # type: ignore[union-attr]
            torch.ones(1, device=self.device).item()

    def _says(self, function: str, *arguments: Any) -> Any:
        return None if self.is_host else _answer(self.device.type, function, *arguments)

    @property
    def name(self) -> str:
        """The device's name, as its maker gives it; "unknown" where torch cannot ask, and for the host."""
        return str(self._says("get_device_name", self.device) or UNKNOWN)

    @property
    def free_bytes(self) -> int | None:
        """Free memory of the device; None where torch cannot ask, and for the host."""
        free = self._says("mem_get_info", self.device)
        return None if free is None else int(free[0])

    @property
    def held_bytes(self) -> int | None:
        """Memory of the device that torch holds; None where torch cannot ask, and for the host."""
        held = self._says("memory_reserved", self.device)
        return None if held is None else int(held)

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that tensors of this process took; None where torch cannot ask, and for the host."""
        peak = self._says("max_memory_allocated", self.device)
        return None if peak is None else int(peak)

    def side_stream(self) -> AbstractContextManager[Any]:
        """A stream beside torch's default one, as a context; no-op where there is one stream alone."""
        stream = self._says("Stream")
        return (stream and self._says("stream", stream)) or nullcontext()

    @cached_property
    def side_copies(self) -> bool:
        """Whether copies can run on a stream beside the computation, each stream waiting for events of the other."""
        return self.pinned_memory and _works(self._copy_beside)

    def _copy_beside(self) -> None:
        stream = self.new_stream()
        with self.on_stream(stream):
            copy = torch.ones(1, pin_memory=True).to(self.device, non_blocking=True)
            copied = self.untimed_event()
        self.current_stream().wait_event(copied)
        stream.wait_event(self.untimed_event())
        if copy.item() != 1:
            raise RuntimeError("the copy has not arrived")

    def new_stream(self) -> Any:
        """A stream beside torch's current one."""
        return self.module.Stream(device=self.device)  # type: ignore[union-attr]

    def on_stream(self, stream: Any) -> AbstractContextManager[Any]:
        """A context in which `stream` is torch's current one."""
        context: AbstractContextManager[Any] = self.module.stream(stream)  # type: ignore[union-attr]
        return context

    def current_stream(self) -> Any:
        """The stream that work is given to."""
        return self.module.current_stream(self.device)  # type: ignore[union-attr]

    def untimed_event(self) -> Any:
        """An event that marks the work given to the current stream so far, for another stream to wait for."""
        event = self.module.Event()  # type: ignore[union-attr]
        event.record()
        return event

    def random_state(self) -> Tensor | None:
        """The state (n,) uint8 of the device's random generator. None for the host, and where torch cannot tell."""
        state: Tensor | None = self._says("get_rng_state")
        return state

    def lacking(self) -> list[str]:
        """The abilities of a step and an evaluation that it lacks, in words; each has a default."""
        has = {
            "float64": self.float64,
            "page-locked memory": self.pinned_memory,
            "timed events": self.timed_events,
            "a name": self.name != UNKNOWN,
            "channels-last": self.channels_last,
            "bf16": self.autocast("bf16"),
            "fp16": self.autocast("fp16"),
        }
        return [name for name, there in has.items() if not there]


def _works(attempt: Callable[[], Any]) -> bool:
    """Whether it can be done. What is missing has no common class of errors: each maker's library raises its own."""
    try:
        attempt()
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False
    return True
