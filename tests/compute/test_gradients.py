"""One buffer for all gradients: what lies in it, how it is averaged, and what goes over the wire."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from ssd.compute.gradients import FlatGradients, communicate_in_bf16
from ssd.compute.ranks import Ranks


@dataclass
class TwoRanks:
    """The first of `world_size` ranks; the other one, played here, adds 1.5 to every sum: half of its gradient of 3."""

    world_size: int = 2
    wires: list[torch.dtype] = field(default_factory=list)

    def sum_(self, tensor: Tensor) -> None:
        self.wires.append(tensor.dtype)
        tensor.add_(1.5)

    spread_ = Ranks.spread_
    _communicated, _arrived_, through_host = Ranks._communicated, Ranks._arrived_, False


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sizes of what is broadcast, and from whom."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(dist, "broadcast", lambda tensor, src: found.append((tensor.numel(), src)))
    return found


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    model[1].bias.requires_grad_(False)
    return model.to(memory_format=torch.channels_last)


def test_gradients_are_views_of_one_buffer_with_the_parameters_strides(sent: list) -> None:
    model = network()
    FlatGradients(model, TwoRanks(world_size=1))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert model[1].bias.grad is None
    assert len({p.grad.untyped_storage().data_ptr() for p in trained}) == 1
    assert sum(p.grad.untyped_storage().nbytes() for p in trained[:1]) == 4 * (6 + 3 + 3)
    assert [p.grad.stride() for p in trained] == [p.stride() for p in trained]
    assert sent == [], "alone, there is nobody to send to"


def test_rank_0_sends_its_parameters_and_statistics(sent: list) -> None:
    FlatGradients(network(), TwoRanks())
    # Weight 6 and bias 3 of the convolution; weight, bias, mean and variance of batch norm, 3 each, and its counter.
    assert sent == [(6, 0), (3, 0), (3, 0), (3, 0), (3, 0), (3, 0), (1, 0)]


@pytest.mark.parametrize(("wire", "mean"), [(torch.float32, 2.00048828125), (torch.bfloat16, 2.0)])
def test_the_mean_over_the_ranks(sent: list, wire: torch.dtype, mean: float) -> None:
    """(1.0009765625 + 3) / 2. In bfloat16 the first is rounded to 1, half of it is 0.5, and the sum is 2."""
    model, ranks = network(), TwoRanks()
    gradients = FlatGradients(model, ranks, wire)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.grad.fill_(1.0009765625)
    gradients.average_()
    for parameter in (p for p in model.parameters() if p.requires_grad):
        assert torch.equal(parameter.grad, torch.full_like(parameter.grad, mean))
        assert parameter.grad.dtype == torch.float32
    assert ranks.wires == [wire]


def test_alone_nothing_is_summed() -> None:
    model, ranks = network(), TwoRanks(world_size=1)
    gradients = FlatGradients(model, ranks, torch.bfloat16)
    model[0].weight.grad.fill_(1.0009765625)
    gradients.average_()
    assert torch.equal(model[0].weight.grad, torch.full_like(model[0].weight, 1.0009765625))
    assert ranks.wires == []


def test_ddp_compresses_to_bfloat16() -> None:
    hooks: list[tuple] = []

    class Wrapped:
        def register_comm_hook(self, state: object, hook: object) -> None:
            hooks.append((state, hook))

    communicate_in_bf16(Wrapped())
    assert hooks == [(None, bf16_compress_hook)]
