"""What an override must leave as it is: random generators, global switches, and other people's functions.

The right answers are computed in the same process. Whoever exchanges a function of torch, or one of this package, would
be held to his own arithmetic.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from ssd.compute.device import Abilities

__all__ = ["exchanged", "functions", "global_state"]

CUDNN_SWITCHES = ("enabled", "benchmark", "deterministic", "allow_tf32")
MATMUL_SWITCHES = (
    "allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)  # fmt: skip
TORCH = Path(torch.__file__).parent
OURS = ("ssd.ops", "ssd.boxes", "ssd.conformance")


def global_state(device: torch.device) -> dict[str, Any]:
    """What an op must leave as it is, by name."""
    state = {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "Python's random state": random.getstate(),
        "numpy's random state": pickle.dumps(np.random.get_state(legacy=False)),
        "numpy's treatment of errors": np.geterr(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
        "the number of threads": torch.get_num_threads(),
        "whether small numbers are flushed to 0": float(torch.full((), 1e-39).mul(1.0)),
        "the direction of rounding": [float(torch.full((), 1.0).add(part)) for part in (0.75 * 2**-23, 0.25 * 2**-23)],
        "cuDNN's switches": _switches(torch.backends.cudnn, CUDNN_SWITCHES),
        "cuBLAS's switches": _switches(torch.backends.cuda.matmul, MATMUL_SWITCHES),
        "oneDNN's switch": torch.backends.mkldnn.enabled,
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
    }
    drawn = Abilities(device).random_state()
    if drawn is not None:
        state["the device's random state"] = drawn.cpu().numpy().tobytes()
    return state


def functions() -> dict[str, Any]:
    """What computes the right answers and compares with them, by name: functions of torch, and the code of ours."""
    found = {
        f"{owner.__name__}.{name}": value
        for owner in (torch, torch.Tensor, torch.nn.functional, torch.autograd)
        for name, value in vars(owner).items()
        if callable(value) and not isinstance(value, (type, ModuleType))
    }
    for module in [module for name, module in sys.modules.items() if name.startswith(OURS)]:
        for name, value in vars(module).items():
            if isinstance(value, FunctionType):
                found[f"{module.__name__}.{name}"] = value.__code__
    return found


def exchanged(before: Mapping[str, Any]) -> list[str]:
    """Names of `functions` that are others than they were. torch wraps some of its own when it imports its compiler."""
    now = functions()
    return sorted(name for name, one in before.items() if now.get(name) is not one and not _torchs(now.get(name)))


def _torchs(function: Any) -> bool:
    """Whether a function's code stands in a file of torch."""
    code = getattr(function, "__code__", None)
    return code is not None and Path(code.co_filename).is_relative_to(TORCH)


def _switches(owner: Any, names: tuple[str, ...]) -> list[Any]:
    """Values of a library's switches; None for one that this release of torch does not have."""
    found = []
    for name in names:
        try:
            found.append(getattr(owner, name))
        except (AttributeError, AssertionError):
            found.append(None)
    return found
