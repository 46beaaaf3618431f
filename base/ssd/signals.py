"""Signals that a process handles for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["handled_by"]


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], Any], numbers: Iterable[int]) -> Iterator[dict[int, Any]]:
    """A context in which `handler` handles these signals. Gives the handler that each of them had before.

    A signal that was ignored stays so, as nohup wants it for SIGHUP. At the end each signal has its earlier handler
    again. Only the main thread may use this, as Python allows no other to set a handler.
    """
    before = {number: was for number in numbers if (was := signal.getsignal(number)) is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield before
    finally:
        for number, was in before.items():
            signal.signal(number, was)
