"""Network, optimizer, step and evaluation, held to the CPU: a device that is played by the CPU, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ssd.config import Config
from ssd.conformance import inputs
from ssd.conformance.whole import BATCH, CLASSES, PARTS, PLACES, Side, _batch, worst
from ssd.vendor import Vendor

CPU = torch.device("cpu")
NAMES = [(op, name) for op, parts in PARTS.items() for name in parts]


def side(vendor: Vendor, **keys: object) -> Side:
    return Side(vendor, Config(name="acme", data_backend="synthetic", pretrained=False, **keys), CPU)


@pytest.mark.parametrize(("op", "name"), NAMES)
def test_the_cpu_is_equal_to_itself(op: str, name: str, tmp_path: Path) -> None:
    assert worst(PARTS[op][name], side(Vendor("acme", tmp_path)))[1] == 0


class Spoiled(Vendor):
    """Puts the model on its device with one weight changed, and steps too far."""

    def convert_model(self, model: nn.Module, config: Config, device: torch.device) -> nn.Module:
        with torch.no_grad():
            first = next(iter(model.parameters()))
            first.view(-1)[:4].add_(2)
        return super().convert_model(model, config, device)

    def make_optimizer(self, model: nn.Module, config: Config, learning_rate: float) -> torch.optim.Optimizer:
        return super().make_optimizer(model, config, learning_rate * 1.5)


@pytest.mark.parametrize(("op", "name"), NAMES)
def test_a_part_that_computes_something_else_is_found(op: str, name: str, tmp_path: Path) -> None:
    _, error, allowed = worst(PARTS[op][name], side(Spoiled("acme", tmp_path)))
    assert error > allowed


def test_boxes_of_the_batch_that_pad_it_have_no_label() -> None:
    """The step sees classes of the narrow network alone, and 0 where there is no box."""
    batch = _batch()
    padding = inputs.truth(BATCH, PLACES, seed=6)[1] == 0
    assert padding.any()
    assert torch.equal(batch.labels == 0, padding)
    assert batch.labels.max() == CLASSES - 1


def test_float32_is_not_rounded_where_a_device_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 of CUDA's convolutions is on by default. It is as before afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []

    def part(side: Side) -> dict[str, torch.Tensor]:
        seen.append(torch.backends.cudnn.allow_tf32)
        return {"found": torch.zeros(2)}

    assert worst(part, side(Vendor("acme", tmp_path)))[1] == 0
    assert (seen[-1], torch.backends.cudnn.allow_tf32) == (False, True)


@pytest.mark.slow
def test_a_short_format_keeps_within_what_is_allowed(tmp_path: Path) -> None:
    for parts in PARTS.values():
        for part in parts.values():
            _, error, allowed = worst(part, side(Vendor("acme", tmp_path), precision="bf16"))
            assert error <= allowed


def test_what_is_not_finite_is_as_far_off_as_can_be(tmp_path: Path) -> None:
    class Broken(Vendor):
        def convert_model(self, model: nn.Module, config: Config, device: torch.device) -> nn.Module:
            nn.init.constant_(next(iter(model.parameters())), float("nan"))
            return model

    assert worst(PARTS["model"]["forward"], side(Broken("acme", tmp_path)))[1] == float("inf")
