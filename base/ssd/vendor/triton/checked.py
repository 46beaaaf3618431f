"""Triton's interpreter with every access to memory checked: what a comparison of results cannot see.

The interpreter runs the programs of a launch one after the other and takes any address. Inside `checked` each load and
store is held to the tensors that the launch was given, and to what other programs of the launch did:

- an access outside every tensor of the launch (a wrong mask, a last block that is too long);
- a race: two programs store to one element, or one loads what another stores. The values do not matter;
- two lanes of one store that write to one element: which of them wins is not defined;
- a load of what the same launch stored: on a GPU nothing orders the two without a barrier;
- an atomic operation on floats: the order of its sums, and so the result, changes from run to run.

A masked load without `other` gives the masked lanes any value: here one that changes from load to load. So a result
that depends on it changes from call to call.

The interpreter cuts float32 off to bfloat16. Inside `checked` it rounds to the nearest value, as GPUs do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from triton import language as tl
from triton.runtime import interpreter

from ssd.vendor.triton.ir import AccessError

__all__ = ["AccessError", "checked"]

NOBODY, SEVERAL = -1, -2
"""In place of a program's number: no program has touched the element, or more than one has loaded it."""
_bytes = np.random.default_rng(0)
"""A generator of its own: an op leaves numpy's alone."""


class _Region:
    """The memory of one tensor: who stored to each element and who loaded it, as program numbers.

    lane: room for `twice`, with any values.
    """

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        self.name, self.itemsize = name, tensor.element_size()
        self.first, self.end = tensor.data_ptr(), tensor.data_ptr() + span * tensor.element_size()
        self.stored_by = np.full(span, NOBODY, np.int64)
        self.loaded_by = np.full(span, NOBODY, np.int64)
        self.lane = np.empty(span, np.int64)

    def twice(self, at: np.ndarray) -> bool:
        """Whether an element stands twice in `at` (n,). It takes no sort: the last lane to mark an element keeps it."""
        lanes = np.arange(len(at))
        self.lane[at] = lanes
        return not np.array_equal(self.lane[at], lanes)


class _Launch:
    """What one launch may touch, and what it has touched."""

    def __init__(self, kernel: Any, arguments: tuple[Any, ...]) -> None:
        self.name, self.folder = kernel.fn.__name__, Path(kernel.fn.__code__.co_filename).parent
        tensors = [(n, a) for n, a in zip(kernel.arg_names, arguments, strict=False) if isinstance(a, torch.Tensor)]
        # One tensor may be passed under several names: it is one memory.
        found = {(t.data_ptr(), t.shape, t.stride()): _Region(name, t) for name, t in reversed(tensors) if t.numel()}
        self.regions = sorted(found.values(), key=lambda region: region.first)
        self.firsts = np.array([region.first for region in self.regions], np.uint64)

    def elements(self, addresses: np.ndarray, what: str) -> Iterator[tuple[_Region, np.ndarray]]:
        """The regions that `addresses` (n,) fall into, with element numbers. AccessError for one outside of all."""
        places = np.searchsorted(self.firsts, addresses, side="right").astype(np.int64) - 1
        # Nearly every access is of one tensor, which two passes tell sooner than a sort.
        alone = places.min() == places.max()
        for place in places[:1] if alone else np.unique(places):
            mine = addresses if alone else addresses[places == place]
            region = self.regions[max(place, 0)]
            outside = int(((mine < region.first) | (mine + np.uint64(region.itemsize) > region.end)).sum())
            if outside:
                raise self.error(f"{what} {outside} elements outside of every tensor; the nearest is {region.name}")
            yield region, ((mine - np.uint64(region.first)) // np.uint64(region.itemsize)).astype(np.int64)

    def store(self, addresses: np.ndarray) -> None:
        """Note a store. AccessError where another program touched an element, or two lanes write to one."""
        me = self.program()
        for region, at in self.elements(addresses, "stores to"):
            if region.twice(at):
                raise self.error(f"stores two values to one element of {region.name}")
            for touched, verb in ((region.stored_by, "stored to"), (region.loaded_by, "loaded")):
                by = touched[at]
                rival = by[(by != NOBODY) & (by != me)]
                if len(rival):
                    raise self.error(f"stores to an element of {region.name} that {_named(rival[0])} {verb}: a race")
            region.stored_by[at] = me

    def load(self, addresses: np.ndarray) -> None:
        """Note a load. AccessError for an element that this launch has stored to."""
        me = self.program()
        for region, at in self.elements(addresses, "loads"):
            by = region.stored_by[at]
            if (by != NOBODY).any():
                rival = by[by != NOBODY][0]
                whose = "it stored itself, with no barrier" if rival == me else f"{_named(rival)} stored: a race"
                raise self.error(f"loads an element of {region.name} that {whose}")
            before = region.loaded_by[at]
            region.loaded_by[at] = np.where((before == NOBODY) | (before == me), me, SEVERAL)

    def program(self) -> int:
        """Number of the program that runs now."""
        x, y, z = interpreter.interpreter_builder.grid_idx
        return int((z << 40) | (y << 20) | x)

    def error(self, text: str) -> AccessError:
        """What is wrong, with kernel, line of its source, and program."""
        return AccessError(f"kernel {self.name}, {self.line()}, {_named(self.program())} {text}")

    def line(self) -> str:
        """File and line of the kernels' source that is being interpreted: the innermost frame in their folder."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.parent == self.folder and path.name != Path(__file__).name:
                return f"{path.name} line {frame.f_lineno}"
            frame = frame.f_back
        return "line unknown"


def _anything(dtype: np.dtype[Any], count: int) -> np.ndarray:
    """`count` values of a type, of bytes that change from load to load."""
    return np.frombuffer(_bytes.integers(0, 256, count * dtype.itemsize, np.uint8).tobytes(), dtype)


def _nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 (...) as the bits of bfloat16, uint16: rounded to nearest, of two as near the even one."""
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def _named(program: int) -> str:
    if program == SEVERAL:
        return "several programs"
    return f"program ({program & 0xFFFFF}, {program >> 20 & 0xFFFFF}, {program >> 40})"


@contextmanager
def checked(kernel: Any, arguments: tuple[Any, ...]) -> Iterator[None]:
    """Check every access that the interpreter makes inside; `kernel` is launched there with `arguments`."""
    launch, builder = _Launch(kernel, arguments), interpreter.interpreter_builder
    load, store, atomic = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    shorten = builder.create_fp_trunc

    def noted(note: Callable[[np.ndarray], None], pointers: Any, mask: Any) -> None:
        addresses = pointers.data[np.broadcast_to(mask.data, pointers.data.shape).astype(bool)]
        if addresses.size:
            note(addresses.astype(np.uint64).reshape(-1))

    def checked_load(pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
        noted(launch.load, pointers, mask)
        found = load(pointers, mask, other, *rest)
        if other is None:
            lanes = ~np.broadcast_to(mask.data, found.data.shape).astype(bool)
            found.data[lanes] = _anything(found.data.dtype, int(lanes.sum()))
        return found

    def checked_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        noted(launch.store, pointers, mask)
        return store(pointers, value, mask, *rest)

    def rounded(value: Any, dtype: Any) -> Any:
        if (value.dtype.scalar, dtype.scalar) != (tl.float32, tl.bfloat16):
            return shorten(value, dtype)
        return interpreter.TensorHandle(_nearest_bfloat16(value.data), dtype.scalar)

    patch, patched = interpreter._patch_lang, set()
    numpys, known = interpreter._get_np_dtype, {}

    def numpys_once(dtype: Any) -> np.dtype[Any]:
        # Triton makes a table of all its types each time that it looks one up: an eighth of all the time.
        scalar = dtype.scalar
        name = "a pointer" if scalar.is_ptr() else scalar.name
        if name not in known:
            known[name] = numpys(scalar)
        return known[name]

    def patch_once(function: Any) -> Any:
        # Triton patches its language for a launch, and again for each call of a device function: half of all the time.
        if id(function.__globals__) in patched:
            return None
        patched.add(id(function.__globals__))
        return patch(function)

    def checked_atomic(operation: Any, pointers: Any, value: Any, *rest: Any) -> Any:
        if np.issubdtype(value.data.dtype, np.floating):
            raise launch.error("adds floats atomically: the result depends on the order of programs")
        return atomic(operation, pointers, value, *rest)

    builder.create_masked_load, builder.create_masked_store = checked_load, checked_store
    builder.create_atomic_rmw, builder.create_fp_trunc = checked_atomic, rounded
    interpreter._patch_lang, interpreter._get_np_dtype = patch_once, numpys_once
    try:
        yield
    finally:
        interpreter._patch_lang, interpreter._get_np_dtype = patch, numpys
        del builder.create_masked_load, builder.create_masked_store
        del builder.create_atomic_rmw, builder.create_fp_trunc
