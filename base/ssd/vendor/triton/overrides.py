"""The Triton kernels as a vendor's overrides: on its hardware, by Triton's interpreter, by its IR, or compiled only.

Importing this module imports neither Triton nor a kernel. Whether kernels are compiled or interpreted is settled when
Triton is imported, so `load` settles it for the means it was asked for, once a process.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from ssd.errors import MachineError
from ssd.ops import OP_NAMES, AnyOp, Ops
from ssd.vendor.overrides import RACES_CHECKED, Compile, Override
from ssd.vendor.triton import ir

__all__ = ["COMPILED_ONLY", "EMULATOR", "HARDWARE", "triton_overrides"]

HARDWARE, EMULATOR, COMPILED_ONLY = "hardware", "emulator", "compiled only"
"""Means of `ssd.vendor.Override`, beside RACES_CHECKED. The last gives a function that lists what was compiled."""


def triton_overrides(name: str, targets: Sequence[str], is_hardware: Callable[[], bool]) -> tuple[Override, ...]:
    """One override `name` for each op. Nothing is imported, compiled or loaded before one is asked for.

    targets: names of `ssd.vendor.triton.targets.TARGETS` that "compiled only" compiles for; none where the vendor's
    Triton has a target of its own. is_hardware: whether a GPU is here on which the vendor runs Triton's kernels.
    """
    means = partial(_means, tuple(targets), is_hardware)
    return tuple(
        Override(op, name, f"base/ssd/vendor/triton/{op}.py", partial(_load, op, tuple(targets)), means)
        for op in OP_NAMES
    )


def _means(targets: tuple[str, ...], is_hardware: Callable[[], bool]) -> Sequence[str]:
    """How this machine can execute the kernels: by nothing where Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        return ()
    stand_ins = (EMULATOR,) + (RACES_CHECKED,) * ir.installed() + (COMPILED_ONLY,) * bool(targets)
    return (HARDWARE, *stand_ins) if is_hardware() else stand_ins


def _load(op: str, targets: tuple[str, ...], means: str) -> AnyOp | Compile:
    """The function of an op; for "compiled only" one without arguments that compiles its kernels, a line for each."""
    interpret = means == EMULATOR
    if "triton" not in sys.modules and interpret:
        os.environ["TRITON_INTERPRET"] = "1"
    from ssd.vendor.triton.launch import INTERPRETED

    if interpret != INTERPRETED:
        state = "interpreted (TRITON_INTERPRET=1)" if INTERPRETED else "compiled"
        raise MachineError(
            f"Triton was imported with kernels {state}, which excludes {means!r} in this process. "
            "Remedy: a process of its own, with TRITON_INTERPRET=1 for the emulator and without it for the others."
        )
    if means == COMPILED_ONLY:
        from ssd.vendor.triton.build import build

        return partial(build, op, targets)
    if means == RACES_CHECKED:
        ir.check_every_launch()
    kernel: AnyOp = getattr(_ops(), op)
    return kernel


def _ops() -> Ops:
    """All of them, named one by one, so that mypy compares each signature with the op's. This imports Triton."""
    from ssd.vendor.triton.augment import augment
    from ssd.vendor.triton.crop import crop
    from ssd.vendor.triton.detect import detect
    from ssd.vendor.triton.encode import encode
    from ssd.vendor.triton.loss import loss

    return Ops(augment, encode, loss, detect, crop)
