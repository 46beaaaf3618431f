"""Triton's own IR, executed on the CPU with every access checked, by the library ttsem.

The interpreter (checked.py) runs the Python source of a kernel. ttsem compiles it with Triton's front end and runs the
result, so it also sees what the compiler makes of the source. It finds two programs whose order decides what an element
holds, accesses outside of a tensor's storage, and operations without a defined result. It does not see a program store
the value that the element holds already; checked.py does.

ttsem needs Python 3.12, torch 2.14.0 and Triton 3.8.0. `make test-races` makes an environment for it.
"""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["AccessError", "check_every_launch", "installed"]

ACCESSES = 2**24
"""Most accesses of elements in one launch that are kept, to look for races: enough for every case of the suite."""


class AccessError(RuntimeError):
    """An access that a GPU may answer with anything. The message names kernel, line, programs and tensor."""


def installed() -> bool:
    """Whether ttsem can be imported."""
    return importlib.util.find_spec("ttsem") is not None


_rest_of_process = ExitStack()


def check_every_launch() -> None:
    """Execute every later launch of this process on the CPU, checked. Nothing undoes it: use a process of its own.

    A launch that breaks a rule, or that is too large to be checked for races, raises AccessError.
    """
    from ttsem import memory, sanitize

    memory.ACCESS_BUDGET = ACCESSES
    # Tensors keep the device that they have: the suite fills and guards memory itself.
    session = sanitize.session(cuda_is_cpu=False, on_stop=_stop, on_unchecked=_unchecked)
    _rest_of_process.enter_context(session)


def _stop(stop: Any) -> NoReturn:
    """Raise what ttsem found, in the words of this suite."""
    fault = getattr(stop, "fault", None)
    raise AccessError(f"not judged: {stop.detail}" if fault is None else words(fault)) from None


def words(fault: Any) -> str:
    """One fault of ttsem: kernel, line of its source, what is wrong."""
    outside = "outside of every tensor"
    kinds = {"race": "a race", "oob_write": f"a store {outside}", "oob_read": f"a load {outside}"}
    where = f"{Path(fault.source_file).name} line {fault.source_line}" if fault.source_line else "line unknown"
    said = fault.detail
    if fault.kind in ("oob_write", "oob_read"):
        count, side = fault.elements_past_end, "past the end"
        if not count:
            count, side = fault.elements_before_start, "before the start"
        said = f"{count} elements {side} of {fault.buffer}"
    return f"kernel {fault.kernel}, {where}, {kinds.get(fault.kind, 'an undefined result')}: {said}"


def _unchecked() -> NoReturn:
    raise AccessError(f"a launch of more than {ACCESSES:,} accesses was not checked for races: make the case smaller")
