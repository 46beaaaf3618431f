"""The step: what it computes, that a CUDA graph could hold it, warm-up, compilation."""

from __future__ import annotations

import contextlib
import copy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from narrow_steps import assert_same, gradients, make_batch, make_model, make_step

from ssd.boxes import default_boxes
from ssd.compute.capture import CaptureGuard
from ssd.compute.copies import BATCH_TENSORS
from ssd.compute.step import (
    blank_batch,
    untouched,
    warm_up,
)
from ssd.data import TrainBatch
from ssd.ops import REFERENCE
from ssd.vendor import compile_model


def test_losses_and_gradients_are_those_of_the_parts() -> None:
    model, batch = make_model(), make_batch(5, seed=1)
    losses = make_step(copy.deepcopy(model), accumulation=4)(batch)
    images = REFERENCE.augment(batch.images, batch)
    targets = REFERENCE.encode(batch.boxes, batch.labels, default_boxes())
    expected = REFERENCE.loss(*model(images), *targets)
    assert torch.equal(losses, expected)
    assert not losses.requires_grad
    assert losses[0] == 0 < losses[1]

    step = make_step(copy.deepcopy(model), accumulation=4)
    for _ in range(4):
        step(batch)
    expected.mean().backward()
    assert_same(gradients(step.model), gradients(model), 1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_could_hold_the_step(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No operation waits for the device, and two batches of one size run the same operations on the same shapes."""
    monkeypatch.setattr(sys.modules["ssd.ops.augment"], "ONE_BY_ONE", ())  # as on an accelerator
    model = make_model()
    step = make_step(model, precision=precision, channels_last=True)
    step.compute(make_batch(8, seed=2))  # makes the gradients, to which the others add: a capture comes after it too
    calls = []
    for batch in (make_batch(8, seed=2), make_batch(8, seed=3)):
        with CaptureGuard() as guard:
            step.compute(batch)
        calls.append(guard.calls)
    assert len(calls[0]) > 500
    assert calls[0] == calls[1]


def test_the_step_runs_where_tensors_have_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """On `meta` nothing can be read back, by any means, also such as the guard does not see."""
    monkeypatch.setattr("ssd.compute.step.autocast", lambda *_: contextlib.nullcontext())  # it knows no device `meta`
    meta = torch.device("meta")
    batch = make_batch(8, seed=2)
    batch = replace(batch, **{name: getattr(batch, name).to(meta) for name in BATCH_TENSORS})
    step = make_step(make_model().to(meta), meta)
    with CaptureGuard():
        losses = step.compute(batch)
    assert losses.shape == (2,)


def test_warm_up_leaves_weights_statistics_and_gradients_alone() -> None:
    model = make_model()
    before, ran = copy.deepcopy(model.state_dict()), []
    buffers = [b.data_ptr() for b in model.buffers()]
    step = make_step(model)

    def spied(batch: TrainBatch) -> Tensor:
        ran.append(step(batch))
        return ran[-1]

    warm_up(spied, model, batch_size=2)
    assert len(ran) == 2
    assert all(losses.isfinite().all() for losses in ran)
    assert all(p.grad is None for p in model.parameters())
    assert_same(model.state_dict(), before)
    assert [b.data_ptr() for b in model.buffers()] == buffers


def test_untouched_restores_after_an_error_too() -> None:
    model = nn.BatchNorm2d(2)
    with pytest.raises(ValueError, match="expected 4D"), untouched(model):
        model(model(torch.randn(2, 2, 3, 3)).sum())
    assert model.num_batches_tracked == 0
    assert torch.equal(model.running_mean, torch.zeros(2))


def test_blank_batches_have_one_box_an_image() -> None:
    batch = blank_batch(3, 8)
    assert batch.labels.tolist() == [[1] + [0] * 7] * 3
    assert batch.boxes[:, 0].tolist() == [[0.25, 0.25, 0.75, 0.75]] * 3
    assert (batch.boxes[:, 1:] == 0).all()
    assert all(getattr(batch, name).dtype == getattr(make_batch(8, 2), name).dtype for name in BATCH_TENSORS)


def test_a_padded_input_gives_the_same_losses_and_gradients() -> None:
    """pad_input: a fourth channel of zeros, with weights of zero that get no gradient."""
    plain, padded = make_model(), make_model(in_channels=4)
    state = plain.state_dict()
    stem = state["trunk.conv1.weight"]
    state["trunk.conv1.weight"] = torch.cat((stem, torch.zeros_like(stem[:, :1])), dim=1)
    padded.load_state_dict(state)
    batch = make_batch(6, seed=2)
    losses = make_step(plain)(batch)
    torch.testing.assert_close(make_step(padded, channels=4)(batch), losses, rtol=1e-5, atol=0)

    expected, actual = gradients(plain), gradients(padded)
    fourth = actual["trunk.conv1.weight"][:, 3]
    actual["trunk.conv1.weight"] = actual["trunk.conv1.weight"][:, :3]
    assert not fourth.any()
    assert_same(actual, expected, 1e-4)


def test_channels_last_gives_the_same_outputs_and_gradients() -> None:
    """In float64: in float32 rounding alone moves gradients of an untrained network by 1%, at 2 images a batch norm."""
    plain = make_model().double()
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 300, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for model, layout in ((plain, torch.contiguous_format), (last, torch.channels_last)):
        locations, logits = model(images.to(memory_format=layout))
        (locations.square().mean() + logits.square().mean()).backward()
    assert_same(gradients(last), gradients(plain), 1e-11)


@pytest.mark.slow
def test_the_compiled_model_equals_the_eager_one() -> None:
    """Its graphs, forward and backward, without the code generator; names and shapes of the state stay."""
    eager = make_model().to(memory_format=torch.channels_last)
    compiled = compile_model(copy.deepcopy(eager), backend="aot_eager")
    batch = make_batch(6, seed=2)
    losses = make_step(compiled, channels_last=True)(batch)
    torch.testing.assert_close(losses, make_step(eager, channels_last=True)(batch), rtol=1e-5, atol=0)
    assert_same(gradients(compiled), gradients(eager), 1e-4)
    assert list(compiled.state_dict()) == list(eager.state_dict())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_generated_code_equals_the_eager_model() -> None:
    """torch.compile with the back end that runs use, on the shortest model that has what the backbone has."""
    import torch._inductor.config as inductor

    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    compiled = compile_model(copy.deepcopy(eager))
    images = torch.randn(2, 3, 20, 20)
    results = []
    # Both save seconds: no pool of compiler processes, no trial compilation for each vector extension.
    with inductor.patch({"compile_threads": 1, "cpp.vec_isa_ok": True}):
        for model in (eager, compiled):
            output = model(images)
            output.square().mean().backward()
            results.append({**gradients(model), "output": output.detach(), **dict(model.named_buffers())})
    assert_same(results[1], results[0], 1e-5)
