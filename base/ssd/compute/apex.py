"""apex, NVIDIA's extension of torch, where a config asks for it: its fused SGD, amp at level O2, and its DDP.

torch's own optimizer, autocast and DDP are the default. Releases of apex differ, so each feature is looked for by
itself. The wheels that accelerator vendors ship have all features. The source of 2026 has no amp and no parallel any
more. The package called `apex` on PyPI is another project. Where a feature is asked for and missing, the run ends with
a message that names the key. Nothing else is used in its place.

The calls are those of apex's documentation (nvidia.github.io/apex). None of them has run on hardware. The tests use a
stand-in for apex with the documented behaviour.
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
"""For each feature that a config can ask for: the function that finds it, or raises MachineError."""


def probe() -> dict[str, str]:
    """For each feature "found", or the reason why it is missing. `vendors check` and a run's records use it."""
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
    """apex.optimizers.FusedSGD with the benchmark's rule: one parameter group, and weight decay on every parameter.

    Raises MachineError where apex does not have it.
    """
    kind = _require('optimizer = "apex_fused_sgd"')
    made: torch.optim.Optimizer = kind(
        model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
    )
    return made


def amp_o2(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, gradient_accumulation_steps: int, precision: str
) -> tuple[nn.Module, torch.optim.Optimizer, ApexScaler]:
    """apex.amp at level O2: fp16 model, fp32 batch norm and master weights, dynamic loss scale.

    Call it after the model was moved to its device and before the model is wrapped in DDP. amp replaces autocast, so
    `precision` must be "fp32". A step must have one backward pass, so `gradient_accumulation_steps` must be 1. Raises
    ConfigError otherwise, and MachineError where apex does not have amp.
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
    """Give amp's zero_grad torch's argument `set_to_none`, which it lacks, and ignore the argument.

    amp's zero_grad sets the model's gradients to zero and frees those of the master weights.
    """
    amps = optimizer.zero_grad

    def zero_grad(set_to_none: bool = True) -> None:
        amps()

    optimizer.zero_grad = zero_grad  # type: ignore[method-assign]


class ApexScaler:
    """apex.amp's loss scale behind the interface of ssd.compute.precision.LossScaler."""

    def __init__(self, amp: Any, optimizer: torch.optim.Optimizer) -> None:
        self._amp, self._optimizer = amp, optimizer
        self._asked = self._taken = 0
        optimizer.register_step_post_hook(self._count)

    def _count(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._taken += 1

    def backward(self, loss: torch.Tensor) -> None:
        """Back-propagate loss (), float32, scaled. apex then unscales the gradients, which synchronises the device."""
        with self._amp.scale_loss(loss, self._optimizer) as scaled:
            scaled.backward()

    def step(self) -> None:
        """Make one optimizer step. After an overflow apex makes this one step a no-op."""
        self._asked += 1
        self._optimizer.step()

    def skipped(self) -> int:
        """The number of steps skipped so far."""
        return self._asked - self._taken

    def skipped_later(self) -> tuple[int, torch.Tensor]:
        """The number of steps skipped so far, and a 0, () float32: the host knows all of them (see LossScaler)."""
        return self.skipped(), torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        """The loss scale, amp's counter of its growth, and the numbers of steps asked for and taken."""
        return {"amp": self._amp.state_dict(), "asked": self._asked, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._amp.load_state_dict(state["amp"])
        self._asked, self._taken = state["asked"], state["taken"]


def distributed(model: nn.Module, *, gradient_accumulation_steps: int) -> nn.Module:
    """apex's DDP with delay_allreduce, as the original used it: one all-reduce after the whole backward pass.

    apex's DDP has no `no_sync`, so accumulated gradients would be reduced after every micro-batch. Raises ConfigError
    where gradient_accumulation_steps is not 1, and MachineError where apex does not have DDP.
    """
    kind = _require('ddp = "apex"')
    if gradient_accumulation_steps != 1:
        raise ConfigError(
            f'ddp = "apex" with gradient_accumulation_steps = {gradient_accumulation_steps}: apex\'s DDP has no '
            'no_sync, so it would reduce the gradients after every micro-batch. Set it to 1, or ddp = "torch"'
        )
    wrapped: nn.Module = kind(model, delay_allreduce=True)
    return wrapped
