"""What a run captures as CUDA graphs, by its keys. A stand-in captures: it repeats the computation."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssd.boxes import default_boxes
from ssd.compute.gradients import FlatGradients
from ssd.compute.graphs import GraphedStep, WholeStep
from ssd.compute.optimizer import make_sgd
from ssd.compute.precision import LossScaler
from ssd.compute.ranks import Ranks
from ssd.compute.step import TrainStep, Update, blank_batch
from ssd.config import Config
from ssd.model import build_model
from ssd.ops import REFERENCE
from ssd.run import setup
from ssd.run.evaluation import detections
from ssd.run.live import Work

CPU = torch.device("cpu")
WHOLE = {"cuda_graph": True, "optimizer": "torch_fused", "detect_op": "triton"}


class Repeated:
    """Plays CudaGraphs, and notes its limit and the model's mode at each capture."""

    made: list[Repeated]

    def __init__(self, device: torch.device, limit: float | None) -> None:
        self.limit, self.captures = limit, 0
        type(self).made.append(self)

    def __call__(self, compute: Callable[[], Any]) -> Callable[[], Any]:
        self.captures += 1
        compute()
        return compute


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Work, Any, Repeated]]:
    """The work of a run with these keys, its model, and what captured it."""
    Repeated.made = []
    monkeypatch.setattr(setup, "CudaGraphs", Repeated)

    def work(world_size: int = 1, **keys: Any) -> tuple[Work, Any, Repeated]:
        config = Config(train_batch_size=2, num_classes=4, width=0.125, pretrained=False, **keys)
        model = build_model(seed=3, num_classes=4, width=0.125)[0].train()
        sgd = make_sgd(model.parameters(), learning_rate=0.5, momentum=0.9, weight_decay=0.0, fused=True)
        scaler, flat = LossScaler(sgd, CPU, "fp32"), FlatGradients(model, Ranks())
        eager = TrainStep(model, REFERENCE, default_boxes(), scaler.backward, CPU)
        index = SimpleNamespace(offsets=np.array([0, 3, 8]))
        start: Any = SimpleNamespace(
            config=config, device=CPU, ranks=Ranks(world_size=world_size), loader=SimpleNamespace(index=index)
        )
        built: Any = SimpleNamespace(model=model, scaler=scaler)
        plain = Work(eager, model, Update(sgd, scaler.step, flat))
        return setup._captured(start, built, plain, REFERENCE, default_boxes(), [2, 1]), model, Repeated.made[-1]

    return work


def test_gradients_alone(captured: Any) -> None:
    work, _, capture = captured(cuda_graph=True)
    assert isinstance(work.step, GraphedStep)
    assert work.whole is None
    assert work.detect is None
    assert (capture.captures, capture.limit) == (1, None)


@pytest.mark.parametrize(("accumulation", "captures"), [(1, 1), (2, 2)])
def test_a_whole_step(captured: Any, accumulation: int, captures: int) -> None:
    work, model, capture = captured(**WHOLE, graph_scope="step", gradient_accumulation_steps=accumulation)
    assert isinstance(work.whole, WholeStep)
    assert isinstance(work.step, GraphedStep if accumulation == 2 else TrainStep)
    assert work.detect is None
    assert capture.captures == captures
    before = model.class_heads[0].bias.detach().clone()
    work.micro_batch(blank_batch(2, 8), last=accumulation == 1)
    assert torch.equal(model.class_heads[0].bias, before) is (accumulation == 2)
    work.finish()  # nothing is left to do: a second update would move the weights by their momentum
    after = model.class_heads[0].bias.detach().clone()
    work.finish()
    assert torch.equal(model.class_heads[0].bias, after)


def test_an_evaluation_too(captured: Any) -> None:
    work, model, _ = captured(**WHOLE, graph_scope="all")
    assert model.training
    assert work.detect is not None
    model.eval()
    images = torch.randint(0, 256, (2, 300, 300, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for count in (2, 1):
            found = work.detect(images[:count])
            expected = detections(images[:count], model, REFERENCE, default_boxes(), Config())
            assert expected.count.sum() > 0
            for name, value in vars(expected).items():
                assert torch.equal(getattr(found, name), value)


@pytest.mark.parametrize(
    ("keys", "limit"),
    [({}, None), ({"bn_group": 2, "nproc_per_node": 2}, 50.0), ({"graph_scope": "step"}, 50.0)],
    ids=str,
)
def test_a_replay_that_holds_collectives_is_waited_for_so_long(captured: Any, keys: dict, limit: float | None) -> None:
    _, _, capture = captured(2, **{**WHOLE, "step_timeout": 50, **keys})
    assert capture.limit == limit
