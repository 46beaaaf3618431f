"""apex, NVIDIA's extension of torch, where a config asks for it: its fused SGD, amp at level O2, and its DDP.

torch's own are the default. apex is probed feature by feature, because its releases differ: the wheels that accelerator
vendors ship have everything, its source of 2026 has no amp and no parallel any more, and the package called `apex` on
PyPI is another project. What is asked for and not there ends the run, naming the key; nothing is replaced in silence.

Calls are those of apex's documentation (nvidia.github.io/apex). None of it could be run on hardware here: the tests
run against a stand-in with the documented behaviour.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ssd.errors import ConfigError, MachineError

__all__ = ["FEATURES", "ApexScaler", "amp_o2", "distributed", "fused_sgd", "probe"]

_REMEDY = "install the apex wheel of your accelerator's vendor, or build github.com/NVIDIA/apex with its extensions"


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a wheel built for another torch fails in many ways when it is imported
        raise MachineError(f"{name} cannot be imported ({type(error).__name__}: {error})") from error


def _attribute(module: str, name: str) -> Any:
    found = getattr(_module(module), name, None)
    if found is None:
        raise MachineError(f"{module} has no {name}: it is another release of apex, or PyPI's unrelated package apex")
    return found


def _fused_sgd() -> Any:
    applier = _attribute("apex.multi_tensor_apply", "multi_tensor_applier")
    if not getattr(applier, "available", False):
        raise MachineError("apex was built without its extension amp_C")
    return _attribute("apex.optimizers", "FusedSGD")


def _amp() -> Any:
    for name in ("initialize", "scale_loss", "state_dict", "load_state_dict"):
        _attribute("apex.amp", name)
    return _module("apex.amp")


def _ddp() -> Any:
    return _attribute("apex.parallel", "DistributedDataParallel")


FEATURES: dict[str, Callable[[], Any]] = {
    'optimizer = "apex_fused_sgd"': _fused_sgd,
    'amp = "apex_o2"': _amp,
    'ddp = "apex"': _ddp,
}
"""What a config can ask for, and what finds it."""


def probe() -> dict[str, str]:
    """For each feature "found", or why it is not: for `vendors check` and the run's record."""
    answers = {}
    for asked, find in FEATURES.items():
        try:
            find()
            answers[asked] = "found"
        except MachineError as error:
            answers[asked] = str(error)
    return answers


def _require(asked: str) -> Any:
    try:
        return FEATURES[asked]()
    except MachineError as error:
        key = asked.split(" ")[0]
        raise MachineError(f'{asked} was asked for: {error}. Remedy: {_REMEDY}, or set {key} = "torch".') from error


def fused_sgd(model: nn.Module, *, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """apex.optimizers.FusedSGD with the benchmark's rule: one group, weight decay on every parameter."""
    kind = _require('optimizer = "apex_fused_sgd"')
    made: torch.optim.Optimizer = kind(
        model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
    )
    return made


def amp_o2(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, gradient_accumulation_steps: int, precision: str
) -> tuple[nn.Module, torch.optim.Optimizer, ApexScaler]:
    """apex.amp at O2: fp16 model, fp32 batch norm and master weights, dynamic loss scale.

    Comes after the model is on its device and before it is distributed. It replaces autocast, so `precision` stays
    "fp32"; and one step is one backward pass. ConfigError otherwise.
    """
    amp = _require('amp = "apex_o2"')
    if precision != "fp32":
        raise ConfigError(
            f'amp = "apex_o2" casts the model itself, precision = "{precision}" would cast again: '
            'set precision = "fp32"'
        )
    if gradient_accumulation_steps != 1:
        raise ConfigError(
            f'amp = "apex_o2" with gradient_accumulation_steps = {gradient_accumulation_steps}: gradients would be '
            'unscaled at each micro-batch. Set it to 1, or amp = "torch"'
        )
    model, optimizer = amp.initialize(model, optimizer, opt_level="O2", loss_scale="dynamic", verbosity=0)
    _accept_set_to_none(optimizer)
    return model, optimizer, ApexScaler(amp, optimizer)


def _accept_set_to_none(optimizer: torch.optim.Optimizer) -> None:
    """amp replaces zero_grad by one without torch's argument: it zeroes the model's, frees the masters' gradients."""
    amps = optimizer.zero_grad

    def zero_grad(set_to_none: bool = True) -> None:
        amps()

    optimizer.zero_grad = zero_grad  # type: ignore[method-assign]


class ApexScaler:
    """The interface of ssd.compute.precision.LossScaler over apex.amp's loss scale."""

    def __init__(self, amp: Any, optimizer: torch.optim.Optimizer) -> None:
        self._amp, self._optimizer = amp, optimizer
        self._asked = self._taken = 0
        optimizer.register_step_post_hook(self._count)

    def _count(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._taken += 1

    def backward(self, loss: torch.Tensor) -> None:
        """Back-propagate the scaled loss. apex unscales the gradients as the context ends, and reads the device."""
        with self._amp.scale_loss(loss, self._optimizer) as scaled:
            scaled.backward()

    def step(self) -> None:
        """One optimizer step. After an overflow apex replaces it, once, by one that does nothing."""
        self._asked += 1
        self._optimizer.step()

    def skipped(self) -> int:
        """Steps skipped so far."""
        return self._asked - self._taken

    def state_dict(self) -> dict[str, Any]:
        """Scale, growth, and counts."""
        return {"amp": self._amp.state_dict(), "asked": self._asked, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._amp.load_state_dict(state["amp"])
        self._asked, self._taken = state["asked"], state["taken"]


def distributed(model: nn.Module, *, gradient_accumulation_steps: int) -> nn.Module:
    """apex's DDP with delay_allreduce: one reduction after the whole backward pass, as the original used it.

    It has no `no_sync`, so accumulated gradients would be reduced once a micro-batch: ConfigError.
    """
    kind = _require('ddp = "apex"')
    if gradient_accumulation_steps != 1:
        raise ConfigError(
            f'ddp = "apex" with gradient_accumulation_steps = {gradient_accumulation_steps}: it cannot hold back the '
            'reduction. Set it to 1, or ddp = "torch"'
        )
    wrapped: nn.Module = kind(model, delay_allreduce=True)
    return wrapped
