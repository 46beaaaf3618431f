"""One function called for many numbers by forked processes, which have everything that this process has loaded.

An emulator, a library that was built, or a closure cannot be sent to another process, and a fork has them. Not for a
process that uses an accelerator.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

__all__ = ["forked"]

_call: Callable[[int], Any] | None = None


def forked(call: Callable[[int], Any], count: int, processes: int) -> list[Any]:
    """call(0), ..., call(count - 1) by some processes, the last number first. None for a call that ended its process.

    What the calls return must be picklable. What one of them raises is raised here.
    """
    found = _pooled(call, range(count - 1, -1, -1), processes)
    for number in set(range(count)) - set(found):  # a process that ended took the others' calls along
        found |= _pooled(call, [number], 1)
    return [found.get(number) for number in range(count)]


def _pooled(call: Callable[[int], Any], numbers: Iterable[int], processes: int) -> dict[int, Any]:
    """What the calls return, by number, without those that were not done when a process ended."""
    context = multiprocessing.get_context("fork")
    found = {}
    with ProcessPoolExecutor(processes, context, _keep, (call,)) as pool:
        futures = {}
        try:
            for number in numbers:
                futures[number] = pool.submit(_do, number)
        except BrokenProcessPool:
            pass
        for number, future in futures.items():
            if not isinstance(future.exception(), BrokenProcessPool):
                found[number] = future.result()
    return found


def _keep(call: Callable[[int], Any]) -> None:
    """In a new process. The function came with the fork, and calls are numbers."""
    global _call
    _call = call
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process that is killed, as one that takes too long is, cannot end its forks: they would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(number: int) -> Any:
    assert _call is not None
    return _call(number)
