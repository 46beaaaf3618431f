"""The Triton kernels of the four ops: what vendor.py offers as overrides, each asked for by `<op>_op = "triton"`.

Importing this package imports neither Triton nor a kernel: whether kernels are compiled or interpreted is settled when
Triton is imported, so `load` does that for the means it was asked for, once a process.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from ssd.config.folders import display_path
from ssd.errors import MachineError
from ssd.ops import OP_NAMES, AnyOp, Ops
from ssd.vendor import Override
from ssd.vendor.overrides import Compile

__all__ = ["overrides"]

HARDWARE, EMULATOR, COMPILED_ONLY = "hardware", "emulator", "compiled only"

LEAST_CAPABILITY = (8, 0)
"""Triton promises nothing for older GPUs: V100 (7.0) runs the reference ops."""


def overrides() -> list[Override]:
    """One override an op, all called "triton"."""
    folder = Path(__file__).parent
    return [Override(op, "triton", display_path(folder / f"{op}.py"), partial(_load, op), _means) for op in OP_NAMES]


def _means() -> Sequence[str]:
    """How this machine can execute the kernels: by nothing without Triton, on the hardware with a GPU it supports."""
    if importlib.util.find_spec("triton") is None:
        return ()
    gpu = torch.version.hip is None and torch.cuda.is_available()
    if gpu and torch.cuda.get_device_capability() >= LEAST_CAPABILITY:
        return HARDWARE, EMULATOR, COMPILED_ONLY
    return EMULATOR, COMPILED_ONLY


def _load(op: str, means: str) -> AnyOp | Compile:
    """The function of an op; for "compiled only" one without arguments that compiles its kernels, a line for each."""
    interpret = means == EMULATOR
    if "triton" not in sys.modules and interpret:
        os.environ["TRITON_INTERPRET"] = "1"
    from .launch import INTERPRETED

    if interpret != INTERPRETED:
        state = "interpreted (TRITON_INTERPRET=1)" if INTERPRETED else "compiled"
        raise MachineError(
            f"Triton was imported with kernels {state}, which excludes {means!r} in this process. "
            "Remedy: a process of its own, with TRITON_INTERPRET=1 for the emulator and without it for the others."
        )
    if means == COMPILED_ONLY:
        from .build import build

        return partial(build, op)
    kernel: AnyOp = getattr(_ops(), op)
    return kernel


def _ops() -> Ops:
    """All four, named one by one, so that mypy compares each signature with the op's. This imports Triton."""
    from .augment import augment
    from .detect import detect
    from .encode import encode
    from .loss import loss

    return Ops(augment, encode, loss, detect)
