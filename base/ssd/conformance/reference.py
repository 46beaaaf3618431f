"""The reference op as the source of right answers, and a look at whether an override calls it.

An override that calls the reference is legitimate, and the table names it. The right answers come from copies of the
reference functions, so that every call of the functions themselves is somebody else's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from ssd.ops import OP_NAMES, REFERENCE

__all__ = ["calls_of_reference", "reference"]


def reference(op: str) -> Callable[..., Any]:
    """The reference of an op, as a function that `calls_of_reference` does not count."""
    return _copies[op]


@contextmanager
def calls_of_reference(op: str) -> Iterator[list[str]]:
    """A list that gets the name of the calling thread at each call of the reference inside, from whatever thread.

    The function's code is exchanged meanwhile: whoever holds the function calls the new code, under any name.
    """
    function, copy = getattr(REFERENCE, op), _copies[op]
    threads: list[str] = []

    def noted(*inputs: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return copy(*inputs, **options)

    code, function.__globals__[_NOTED] = function.__code__, noted
    function.__code__ = _calls_noted.__code__
    try:
        yield threads
    finally:
        function.__code__ = code
        del function.__globals__[_NOTED]


def _calls_noted(*inputs: Any, **options: Any) -> Any:
    """Its code is lent to a reference, whose module then has the name."""
    return _ssd_noted(*inputs, **options)  # type: ignore[name-defined]  # noqa: F821


_NOTED = "_ssd_noted"


def _copied(function: Callable[..., Any]) -> Callable[..., Any]:
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_copies = {op: _copied(getattr(REFERENCE, op)) for op in OP_NAMES}
