"""apex is probed feature by feature: stand-ins with the documented calls, whole, stripped, broken and absent."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from ssd.compute import apex
from ssd.errors import ConfigError, MachineError

OPTIMIZER, AMP, DDP = apex.FEATURES
NAMES = ("apex", "apex.optimizers", "apex.multi_tensor_apply", "apex.amp", "apex.parallel")


class FusedSGD(torch.optim.SGD):
    """Documented as a drop-in replacement of torch.optim.SGD."""


class StandInAmp(ModuleType):
    """initialize and scale_loss as documented: a scaled loss, unscaled gradients, no step after an overflow."""

    def __init__(self) -> None:
        super().__init__("apex.amp")
        self.scale, self.initialized = 8.0, None

    def initialize(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: object) -> tuple:
        self.initialized = options
        usual = optimizer.zero_grad
        optimizer.zero_grad = lambda: usual(set_to_none=False)  # apex's takes no argument
        return model, optimizer

    @contextmanager
    def scale_loss(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer):
        yield loss * self.scale
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if any(not p.grad.isfinite().all() for p in parameters):
            self.scale /= 2
            usual = optimizer.step

            def skip() -> None:
                optimizer.step = usual

            optimizer.step = skip
            return
        for p in parameters:
            p.grad /= self.scale

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]


class DistributedDataParallel(nn.Module):
    def __init__(self, module: nn.Module, delay_allreduce: bool = False) -> None:
        super().__init__()
        self.module, self.delay_allreduce = module, delay_allreduce


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Puts modules in place of apex; those not given cannot be imported."""

    def put(modules: dict[str, ModuleType | SimpleNamespace]) -> None:
        for name in NAMES:
            monkeypatch.setitem(sys.modules, name, modules.get(name))

    put({})
    return put


def whole(available: bool = True) -> dict[str, ModuleType | SimpleNamespace]:
    """What accelerator vendors ship."""
    return {
        "apex": ModuleType("apex"),
        "apex.optimizers": SimpleNamespace(FusedSGD=FusedSGD),
        "apex.multi_tensor_apply": SimpleNamespace(multi_tensor_applier=SimpleNamespace(available=available)),
        "apex.amp": StandInAmp(),
        "apex.parallel": SimpleNamespace(DistributedDataParallel=DistributedDataParallel),
    }


def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def sgd(of: nn.Module) -> torch.optim.Optimizer:
    return apex.fused_sgd(of, learning_rate=0.1, momentum=0.9, weight_decay=1e-3)


def test_absent(install) -> None:
    answers = apex.probe()
    assert list(answers) == ['optimizer = "apex_fused_sgd"', 'amp = "apex_o2"', 'ddp = "apex"']
    assert all("cannot be imported" in answer for answer in answers.values())


def test_whole(install) -> None:
    install(whole())
    assert set(apex.probe().values()) == {"found"}


def test_todays_source_has_the_optimizer_alone(install) -> None:
    install({name: module for name, module in whole().items() if name not in ("apex.amp", "apex.parallel")})
    answers = apex.probe()
    assert answers[OPTIMIZER] == "found"
    assert "apex.amp cannot be imported" in answers[AMP]
    assert "apex.parallel cannot be imported" in answers[DDP]


def test_built_without_its_extension(install) -> None:
    install(whole(available=False))
    assert apex.probe()[OPTIMIZER] == "apex was built without its extension amp_C"


def test_pypis_apex_is_another_project(install) -> None:
    install(dict.fromkeys(NAMES, SimpleNamespace()))
    assert all("PyPI's unrelated package" in answer for answer in apex.probe().values())


def test_an_import_that_breaks_is_told_not_raised(install, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("undefined symbol: _ZN3c10")

    monkeypatch.setattr(apex.importlib, "import_module", broken)
    assert all("undefined symbol" in answer for answer in apex.probe().values())


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (sgd, 'optimizer = "apex_fused_sgd" was asked for: .* or set optimizer = "torch"'),
        (lambda m: apex.amp_o2(m, sgd, gradient_accumulation_steps=1, precision="fp32"), 'set amp = "torch"'),
        (lambda m: apex.distributed(m, gradient_accumulation_steps=1), 'set ddp = "torch"'),
    ],
)
def test_what_is_asked_for_and_absent_ends_the_run_naming_the_key(install, ask, words: str) -> None:
    with pytest.raises(MachineError, match=words):
        ask(model())


def test_fused_sgd_keeps_the_benchmarks_rule(install) -> None:
    install(whole())
    (group,) = sgd(model()).param_groups
    assert (len(group["params"]), group["lr"], group["momentum"], group["weight_decay"]) == (2, 0.1, 0.9, 1e-3)


@pytest.mark.parametrize(("steps", "precision"), [(2, "fp32"), (1, "bf16")])
def test_o2_refuses_what_it_cannot_do(install, steps: int, precision: str) -> None:
    install(whole())
    net = model()
    with pytest.raises(ConfigError, match='amp = "apex_o2"'):
        apex.amp_o2(net, sgd(net), gradient_accumulation_steps=steps, precision=precision)


def test_ddp_delays_its_reduction_and_refuses_to_accumulate(install) -> None:
    install(whole())
    assert apex.distributed(model(), gradient_accumulation_steps=1).delay_allreduce is True
    with pytest.raises(ConfigError, match=r'gradient_accumulation_steps = 2.*ddp = "torch"'):
        apex.distributed(model(), gradient_accumulation_steps=2)


def test_o2_steps_as_without_scaling_and_counts_what_it_skips(install) -> None:
    modules = whole()
    install(modules)
    net, plain = model(), model()
    optimizer, usual = sgd(net), torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=1e-3)
    net, optimizer, scaler = apex.amp_o2(net, optimizer, gradient_accumulation_steps=1, precision="fp32")
    assert modules["apex.amp"].initialized == {"opt_level": "O2", "loss_scale": "dynamic", "verbosity": 0}

    for step in range(4):
        overflow = step == 1
        inputs = torch.ones(5, 3) * (step + 1)
        scaler.backward(net(inputs).square().mean() * (float("inf") if overflow else 1.0))
        scaler.step()
        optimizer.zero_grad(set_to_none=True)
        if not overflow:
            usual.zero_grad()
            plain(inputs).square().mean().backward()
            usual.step()
    assert scaler.skipped() == 1
    torch.testing.assert_close(net.weight, plain.weight)

    state = scaler.state_dict()
    assert state == {"amp": {"scale": 4.0}, "asked": 4, "taken": 3}
    again = apex.ApexScaler(StandInAmp(), optimizer)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert again.skipped() == 1


def test_an_extension_that_does_not_say_that_it_is_built_is_not(install) -> None:
    for applier in (SimpleNamespace(), SimpleNamespace(available=False)):
        install({"apex": ModuleType("apex"), "apex.multi_tensor_apply": SimpleNamespace(multi_tensor_applier=applier)})
        with pytest.raises(MachineError, match="built without its extension amp_C"):
            apex._fused_sgd()
