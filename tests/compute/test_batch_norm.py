"""Two gloo processes against one that has the joint batch: batch norm over a group, and gradients averaged four ways.

One start of the two processes runs all cases (importing torch takes seconds); each saves what it computed.
"""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ssd.compute.batch_norm import GroupBatchNorm2d, KernelBatchNorm2d, convert_batch_norm, make_bn_group
from ssd.compute.capture import CaptureGuard
from ssd.compute.ranks import Ranks
from ssd.errors import ConfigError

WORKER = """
import os, sys
import torch
from dataclasses import replace
import torch.distributed
from torch import nn
before = set(sys.modules)
from ssd.compute.batch_norm import convert_batch_norm
imported = set(sys.modules) - before
from ssd.compute.ranks import Ranks
from types import SimpleNamespace
from ssd.compute.capture import CaptureGuard
from ssd.compute.gradients import FlatGradients, communicate_in_bf16
from ssd.compute.graphs import WholeStep
from ssd.compute.optimizer import make_sgd
from ssd.compute.precision import LossScaler
from ssd.compute.step import Update, blank_batch

torch.set_num_threads(1)
given = torch.load(sys.argv[1], weights_only=False)
ranks = Ranks.from_environment().connect("gloo", torch.device("cpu"), 60)
mine = lambda joint, sizes: joint.split(sizes)[ranks.rank]
found = {"imported": imported}

for name, case in given["norm"].items():
    model = convert_batch_norm(case["model"], 2, replace(ranks, through_host=case["host"]), 60, case["float64"])
    x = mine(case["x"], case["sizes"]).clone(memory_format=getattr(torch, case["layout"])).requires_grad_()
    if case["compiled"]:
        model.compile(backend="aot_eager", dynamic=False)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case["autocast"]):
        y = model(x)
    (y * mine(case["weights"], case["sizes"])).sum().backward()
    found[name] = {"y": y.detach(), "x": x.grad, "state": model.state_dict()}
    found[name]["kinds"] = [type(layer).__name__ for layer in model]
    found[name]["parameters"] = {n: p.grad for n, p in model.named_parameters()}

for name in ("ddp", "ddp_bf16", "flat", "flat_bf16"):
    model = convert_batch_norm(given["network"], 2, ranks, 60)
    model.load_state_dict(given["state"])
    model.zero_grad()
    if ranks.rank == 1 and name.startswith("flat"):
        with torch.no_grad():
            model[0].weight.add_(1)  # rank 0's weights must win
    wire = torch.bfloat16 if name.endswith("bf16") else torch.float32
    if name.startswith("ddp"):
        trained = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        if wire == torch.bfloat16:
            communicate_in_bf16(trained)
        trained(mine(given["images"], [3, 3])).square().mean().backward()
    else:
        flat = FlatGradients(model, ranks, wire)
        for half in mine(given["images"], [3, 3]).split([3]):
            model(half).square().mean().backward()
        flat.average_()
    found[name] = {n: p.grad.clone() for n, p in model.named_parameters()}

model = convert_batch_norm(given["network"], 2, ranks, 60)
state = {n: value.clone() for n, value in model.state_dict().items()}
for name in ("eager", "captured"):
    model.load_state_dict(state)
    sgd = make_sgd(model.parameters(), learning_rate=0.125, momentum=0.9, weight_decay=5e-4, fused=True)
    scaler = LossScaler(sgd, torch.device("cpu"), "fp32")
    flat = FlatGradients(model, ranks)

    def compute(batch):
        losses = model(batch.images[:, :9, :9].permute(0, 3, 1, 2) / 8.0).square().mean((1, 2, 3))
        scaler.backward(losses.mean())
        return losses.detach()

    step = SimpleNamespace(model=model, device=torch.device("cpu"), copies=None, compute=compute)
    update = Update(sgd, scaler.step, flat)

    def capture(work):
        work()

        def replay():
            with CaptureGuard() as guard:
                losses = work()
            found["collectives"] = [call for call, _ in guard.calls if call.startswith("c10d")]
            return losses

        return replay

    whole = WholeStep(step, update, scaler, capture, 3, 8) if name == "captured" else None
    for number in range(2):
        batch = blank_batch(3, 8)
        batch.images.random_(generator=torch.Generator().manual_seed(2 * number + ranks.rank))
        losses = whole(batch) if whole else compute(batch)
        if whole is None:
            update()
    momentum = {f"momentum {n}": one["momentum_buffer"] for n, one in enumerate(sgd.state.values())}
    found[name] = {n: value.clone() for n, value in {"losses": losses, **model.state_dict(), **momentum}.items()}
torch.save(found, sys.argv[2])
ranks.close()
os._exit(0)  # all is written, and gloo's threads may abort a process that takes itself down
"""


def make_norm_cases() -> dict[str, dict]:
    generator = torch.Generator().manual_seed(1)
    cases = {}
    for name, changed in {
        "float32": {},
        "channels_last": {"layout": "channels_last"},
        "autocast": {"autocast": True},
        "compiled": {"compiled": True},
        "far_from_zero": {"mean": 300.0},
        "no_float64": {"float64": False, "host": True},
        "no_float64_far_from_zero": {"float64": False, "mean": 300.0},
    }.items():
        case = {"layout": "contiguous_format", "autocast": False, "compiled": False, "mean": 0.5, **changed}
        case = {"float64": True, "host": False, **case}
        model = nn.Sequential(
            nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4, momentum=0.3)
        )
        if case["mean"] > 100:
            model = model[:1]
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        sizes = [2, 3]  # unequal, so that a mean of means is not the mean
        x = torch.randn(5, 4, 6, 7, generator=generator) * torch.tensor([1.0, 0.1, 3.0, 1.0]).view(1, 4, 1, 1)
        weights = torch.randn(5, 4, 6, 7, generator=generator)
        cases[name] = {**case, "model": model, "sizes": sizes, "x": x + case["mean"], "weights": weights}
    return cases


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def given() -> dict:
    torch.manual_seed(4)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3))
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(6, 3, 9, 9)
    return {"norm": make_norm_cases(), "network": network, "state": network.state_dict(), "images": images}


@pytest.fixture(scope="module")
def found(root: Path, given: dict, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    torch.save(given, folder / "given.pt")
    environment = {**os.environ, "PYTHONPATH": str(root / "base"), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, *(str(folder / name) for name in ("worker.py", "given.pt", f"{rank}.pt"))],
            env={**environment, "RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    assert [process.wait(300) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


TOLERANCE = {"float32": 2e-6, "channels_last": 2e-6, "compiled": 2e-6, "autocast": 5e-2, "far_from_zero": 1e-3}
TOLERANCE |= {"no_float64": 2e-6, "no_float64_far_from_zero": 1e-3}


@pytest.mark.slow
def test_torch_s_compiler_is_not_imported_before_it_is_needed(found: list[dict]) -> None:
    """It takes longer to import than torch, and `detect` or `evaluate` need it never."""
    for one in found:
        assert "ssd.compute.batch_norm" in one["imported"]
        assert "torch._dynamo" not in one["imported"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLERANCE)
def test_two_processes_equal_one_with_the_joint_batch(given: dict, found: list[dict], name: str) -> None:
    """Outputs, gradients of inputs and parameters, running statistics with the joint, unbiased variance."""
    case, tolerance = given["norm"][name], TOLERANCE[name]
    joint = copy.deepcopy(case["model"])
    x = case["x"].clone(memory_format=getattr(torch, case["layout"])).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case["autocast"]):
        y = joint(x)
    (y * case["weights"]).sum().backward()

    ours = [rank[name] for rank in found]
    assert all("BatchNorm2d" not in rank["kinds"] and "GroupBatchNorm2d" in rank["kinds"] for rank in ours)
    close(torch.cat([rank["y"] for rank in ours]), y.detach(), tolerance)
    close(torch.cat([rank["x"] for rank in ours]), x.grad, tolerance)
    for parameter, value in joint.named_parameters():
        close(sum(rank["parameters"][parameter] for rank in ours), value.grad, tolerance)
    assert list(ours[0]["state"]) == list(joint.state_dict())
    for entry, value in joint.state_dict().items():
        assert torch.equal(ours[0]["state"][entry], ours[1]["state"][entry])
        close(ours[0]["state"][entry], value, tolerance)


@pytest.mark.slow
def test_dtype_and_memory_format_are_the_inputs(found: list[dict]) -> None:
    assert found[0]["channels_last"]["y"].is_contiguous(memory_format=torch.channels_last)
    assert found[0]["float32"]["y"].is_contiguous()
    layer = GroupBatchNorm2d(4, None).eval()
    assert layer(torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tolerance"), [("ddp", 2e-6), ("flat", 2e-6), ("ddp_bf16", 2e-2), ("flat_bf16", 2e-2)]
)
def test_averaged_gradients_are_those_of_the_joint_batch(
    given: dict, found: list[dict], name: str, tolerance: float
) -> None:
    joint = copy.deepcopy(given["network"])
    joint.load_state_dict(given["state"])
    joint.zero_grad()
    joint(given["images"]).square().mean().backward()
    for parameter, value in joint.named_parameters():
        assert torch.equal(found[0][name][parameter], found[1][name][parameter])
        close(found[0][name][parameter], value.grad, tolerance)
        assert found[0][name][parameter].stride() == value.stride()


@pytest.mark.slow
def test_bf16_is_what_goes_over_the_wire(found: list[dict]) -> None:
    for name in ("ddp_bf16", "flat_bf16"):
        for gradient in found[0][name].values():
            assert torch.equal(gradient, gradient.bfloat16().float())
    assert not torch.equal(found[0]["ddp"]["0.weight"], found[0]["ddp_bf16"]["0.weight"])


@pytest.mark.slow
def test_a_whole_step_with_its_groups_and_its_average_could_be_captured(found: list[dict]) -> None:
    """Two steps of two processes, bit for bit those that are not captured; the collectives are among what was seen."""
    for rank in found:
        assert list(rank["captured"]) == list(rank["eager"])
        for name, value in rank["eager"].items():
            assert torch.equal(rank["captured"][name], value), name
        assert len(rank["collectives"]) == 3, "one norm forward and backward, and the gradients"
    assert torch.equal(found[0]["captured"]["0.weight"], found[1]["captured"]["0.weight"])
    assert not torch.equal(found[0]["captured"]["losses"], found[1]["captured"]["losses"])


def test_groups_are_of_neighbours_and_every_rank_makes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("torch.distributed.new_group", lambda members, timeout: made.append(members) or members)
    assert make_bn_group(2, Ranks(rank=3, world_size=6), 60) == [2, 3]
    assert made == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(("bn_group", "world_size"), [(3, 4), (8, 4), (2, 1), (0, 4)])
def test_a_group_that_does_not_come_out_even_is_refused(bn_group: int, world_size: int) -> None:
    with pytest.raises(
        ConfigError, match=f"bn_group = {bn_group} does not divide the number of processes, {world_size} "
    ):
        make_bn_group(bn_group, Ranks(world_size=world_size), 60)


def test_a_group_of_one_changes_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    assert type(convert_batch_norm(model, 1, Ranks(world_size=4), 60)[0]) is nn.BatchNorm2d


@pytest.mark.parametrize("kernels", [False, True])
def test_conversion_keeps_the_tensors_themselves(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer made before goes on with the same parameters. With kernels it is torch's own layer, in the group."""
    monkeypatch.setattr("ssd.compute.batch_norm.make_bn_group", lambda *_: "group")
    inner = nn.Sequential(nn.BatchNorm2d(3, eps=1e-3, momentum=0.2))
    model = nn.Sequential(nn.Conv2d(3, 3, 1), inner).eval()
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    images = torch.randn(2, 3, 4, 4)
    expected = model(images)
    state = model.state_dict()
    model = convert_batch_norm(model, 2, Ranks(world_size=2), 60, kernels=kernels)
    layer = model[1][0]
    kind = KernelBatchNorm2d if kernels else GroupBatchNorm2d
    assert (type(layer), layer.eps, layer.momentum, layer.training) == (kind, 1e-3, 0.2, False)
    assert (layer.process_group if kernels else layer.group) == "group"
    assert list(model.state_dict()) == list(state)
    assert torch.equal(model(images), expected), "in evaluation it is batch norm"
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def played_kernels(monkeypatch: pytest.MonkeyPatch, other: dict[str, torch.Tensor]) -> None:
    """torch's kernels of SyncBatchNorm in plain torch, and a group of two whose other process has images other["x"].

    other["y"]: the gradient of its output.
    """
    axes = (0, 2, 3)

    def stats(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean(axes), (x.var(axes, correction=0) + eps).rsqrt()

    def gathered(x, means, invstds, mean, var, momentum, eps, counts):
        joint = (means * counts[:, None]).sum(0) / counts.sum()
        square = ((invstds**-2 - eps + means**2) * counts[:, None]).sum(0) / counts.sum()
        variance = square - joint**2
        mean.lerp_(joint, momentum)
        var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
        return joint, (variance + eps).rsqrt()

    def wide(value: torch.Tensor) -> torch.Tensor:
        return value.view(1, -1, 1, 1)

    def elemt(x, weight, bias, mean, invstd, eps):
        return (x - wide(mean)) * wide(invstd * weight) + wide(bias)

    def reduced(gradient, x, mean, invstd, weight, *needed):
        product = (gradient * (x - wide(mean))).sum(axes)
        return gradient.sum(axes), product, product * invstd, gradient.sum(axes)

    def backward(gradient, x, mean, invstd, weight, sum_dy, sum_dy_xmu, counts):
        total = counts.sum()
        centred = (x - wide(mean)) * wide(invstd**2 * sum_dy_xmu / total)
        return (gradient - wide(sum_dy / total) - centred) * wide(invstd * weight)

    def all_gather(everyone: torch.Tensor, mine: torch.Tensor, group: object) -> None:
        x = other["x"]
        theirs = torch.cat((*stats(x, 1e-5), x.new_full((1,), x.numel() // x.shape[1])))
        everyone.copy_(torch.cat((theirs, mine)))

    def all_reduce(combined: torch.Tensor, *_: object, async_op: bool) -> None:
        joint = torch.cat((other["x"], other["mine"]))
        mean, invstd = stats(joint, 1e-5)
        combined.add_(torch.cat(reduced(other["y"], other["x"], mean, invstd, None)[:2]))

    for name, kernel in {
        "batch_norm_stats": stats,
        "batch_norm_gather_stats_with_counts": gathered,
        "batch_norm_elemt": elemt,
        "batch_norm_backward_reduce": reduced,
        "batch_norm_backward_elemt": backward,
    }.items():
        monkeypatch.setattr(torch, name, kernel)
    monkeypatch.setattr("ssd.compute.batch_norm.gather", all_gather)
    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda group: 2)
    monkeypatch.setattr("ssd.compute.batch_norm.make_bn_group", lambda *_: "group")


def test_torchs_kernels_are_called_as_the_joint_batch_needs_and_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are played. torch's own layer selects by a mask here, which waits for the device."""
    torch.manual_seed(0)
    x, weights = (torch.randn(7, 3, 5, 5, dtype=torch.float64) * 2 + 1 for _ in range(2))
    plain = nn.Sequential(nn.BatchNorm2d(3)).double()
    nn.init.uniform_(plain[0].weight, 0.5, 2)
    layer = copy.deepcopy(plain)
    whole = x.clone().requires_grad_()
    expected = plain(whole)
    (expected * weights).sum().backward()

    played_kernels(monkeypatch, {"x": x[:3], "y": weights[:3], "mine": x[3:]})
    convert_batch_norm(layer, 2, Ranks(world_size=2), 60, kernels=True)
    mine = x[3:].clone().requires_grad_()
    with CaptureGuard() as guard:
        found = layer(mine)
        (found * weights[3:]).sum().backward()
    assert guard.calls
    torch.testing.assert_close(found, expected[3:])
    torch.testing.assert_close(mine.grad, whole.grad[3:])
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(dict(layer.named_buffers())[name], buffer)
    torch.testing.assert_close(layer[0].bias.grad, weights[3:].sum((0, 2, 3)))
