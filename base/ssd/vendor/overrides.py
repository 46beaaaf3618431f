"""A vendor's replacements of ops: how one is offered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ssd.ops import AnyOp

__all__ = ["RACES_CHECKED", "Compile", "Override"]

Compile: TypeAlias = Callable[[], Iterable[str]]
"""Compiles an op's kernels for a device that this machine lacks. Gives one line for each kernel that was compiled."""


RACES_CHECKED = "ir, races checked"
"""Means of an override: each access is checked against the memory of tensors and the accesses of other programs."""


@dataclass(frozen=True)
class Override:
    """A vendor's replacement of one op, asked for by `<op>_op = "<name>"`.

    op: one of `ssd.ops.OP_NAMES`. name: the value that asks for it. origin: the source file, for the log.
    load: gives the function; raises MachineError with a remedy where it cannot. Argument: by what means it is to run,
        one of `means()`; a training run always asks for "hardware". "compiled only" gives a `Compile` and not the op.
    means: the ways this machine can execute it, best first: "hardware", or stand-ins such as "emulator" and
        "host build, warp 64"; what is missing from it is reported as not run.
    """

    op: str
    name: str
    origin: str
    load: Callable[[str], AnyOp | Compile]
    means: Callable[[], Sequence[str]]
