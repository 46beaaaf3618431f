"""What a run trains: network, optimizer and scaler by its keys; and tensors of a checkpoint that fit, or do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssd.compute.precision import LossScaler
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.errors import DataError
from ssd.run import build as build_module
from ssd.run.build import Built, build, restore
from ssd.run.checkpoint import Checkpoint
from ssd.vendor import load_vendor

KEYS = {"width": 0.125, "num_classes": 4, "pretrained": False, "base_learning_rate": 0.5, "train_batch_size": 2}


def start(seed: int = 3, **keys: Any) -> SimpleNamespace:
    vendor, device = load_vendor("cpu"), torch.device("cpu")
    config = Config(**{**KEYS, **keys})
    return SimpleNamespace(
        config=config, vendor=vendor, device=device, seed=seed, ranks=Ranks(), abilities=vendor.abilities(device)
    )


def test_a_seed_gives_a_network_and_the_state_after_it() -> None:
    one, again, other = build(start()), build(start()), build(start(seed=4))
    states = [list(made.model.state_dict().values()) for made in (one, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(states[0], states[2], strict=True))
    build(start(seed=11))
    assert torch.default_generator.initial_seed() == 11
    assert one.backbone_sha256 == ""
    assert one.parameters == [name for name, _ in one.model.named_parameters()]
    assert isinstance(one.scaler, LossScaler)
    assert one.optimizer.param_groups[0]["lr"] == 0.5
    assert {parameter.dtype for parameter in one.model.parameters()} == {torch.float32}


def test_a_backbone_is_read_where_the_run_is_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict] = []
    made = nn.Linear(1, 1)
    monkeypatch.setattr(build_module, "build_model", lambda **how: asked.append(how) or (made, "5e"))
    keys = {"width": 1.0, "backbone_path": Path("/b.pth")}
    assert build(start(pretrained=True, **keys)).backbone_sha256 == "5e"
    build(start(pretrained=False, **keys))
    assert [how["backbone_path"] for how in asked] == [Path("/b.pth"), None]
    assert (asked[0]["seed"], asked[0]["num_classes"], asked[0]["width"]) == (3, 4, 1.0)


def test_apex_takes_over_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "amp_o2", lambda model, optimizer, **how: ("model", "optimizer", how))
    asked = start()
    keys = {"amp": "apex_o2", "precision": "fp16", "gradient_accumulation_steps": 3}
    asked.config = asked.config.model_copy(update=keys)
    made = build(asked)
    assert (made.model, made.optimizer) == ("model", "optimizer")
    assert made.scaler == {"gradient_accumulation_steps": 3, "precision": "fp16"}


def trained(steps: int = 1) -> Built:
    """One weight and a bias after some steps of momentum."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    return Built(model, optimizer, LossScaler(optimizer, torch.device("cpu"), "fp32"), [], "")


def saved(of: Built, checkpoint: Callable[..., Checkpoint], **changed: Any) -> Checkpoint:
    tensors = {"model": of.model.state_dict(), "optimizer": of.optimizer.state_dict(), "scaler": of.scaler.state_dict()}
    return checkpoint(**{"step": 1, **tensors, "rng": torch.get_rng_state(), **changed})


def test_tensors_and_random_state_are_put_back(checkpoint: Callable[..., Checkpoint]) -> None:
    of, into = trained(), trained(0)
    torch.manual_seed(99)
    kept = saved(of, checkpoint)
    torch.manual_seed(1)
    restore(into, kept, Config(), Path("a.pt"))
    assert torch.equal(into.model.weight, of.model.weight)
    buffers = [state["momentum_buffer"] for state in into.optimizer.state.values()]
    assert len(buffers) == 2
    assert torch.equal(buffers[0], of.optimizer.state[of.model.weight]["momentum_buffer"])
    assert torch.equal(torch.get_rng_state(), kept.rng)


@pytest.mark.parametrize("field", ["model", "optimizer"])
def test_tensors_of_another_network_are_refused(field: str, checkpoint: Callable[..., Checkpoint]) -> None:
    other = nn.Linear(3, 1)
    state = {"model": other.state_dict(), "optimizer": torch.optim.SGD([other.weight], lr=0.1).state_dict()}[field]
    with pytest.raises(DataError, match=r"(?s)a\.pt: its tensors do not fit this run .*start a new run"):
        restore(trained(0), saved(trained(), checkpoint, **{field: state}), Config(), Path("a.pt"))


def test_a_checkpoint_without_momentum_is_refused_where_steps_were_done(checkpoint: Callable[..., Checkpoint]) -> None:
    bare = trained(0)
    for step, momentum, refused in ((1, 0.9, True), (0, 0.9, False), (1, 0.0, False)):
        into, kept = trained(0), saved(bare, checkpoint, step=step)
        if refused:
            with pytest.raises(
                DataError, match=r"no momentum for a parameter of shape \(1, 2\), though 1 step of training came before"
            ):
                restore(into, kept, Config(momentum=momentum), Path("a.pt"))
        else:
            restore(into, kept, Config(momentum=momentum), Path("a.pt"))


def test_momentum_of_another_shape_is_refused(checkpoint: Callable[..., Checkpoint]) -> None:
    of = trained()
    of.optimizer.state[of.model.bias]["momentum_buffer"] = torch.ones(7)
    with pytest.raises(DataError, match=r"no momentum for a parameter of shape \(1,\)"):
        restore(trained(0), saved(of, checkpoint), Config(), Path("a.pt"))


def test_no_memory_is_no_fault_of_the_checkpoint(
    checkpoint: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: Any) -> None:
        raise torch.OutOfMemoryError("full")

    into, kept = trained(0), saved(trained(), checkpoint)
    monkeypatch.setattr(into.model, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        restore(into, kept, Config(), Path("a.pt"))
