"""CUDA graphs: capture and replay, padding, a whole step, an evaluation's batch, and how far the host is ahead.

CUDA graphs need their hardware. Here a stand-in takes their place: it repeats the computation on the captured memory.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from narrow_steps import CPU, assert_same, gradients, make_batch, make_model, make_step

from ssd.boxes import default_boxes
from ssd.compute.capture import CaptureError, CaptureGuard
from ssd.compute.gradients import FlatGradients
from ssd.compute.graphs import CudaGraphs, GraphedImages, GraphedStep, WholeStep, padded_boxes
from ssd.compute.optimizer import make_sgd
from ssd.compute.precision import LossScaler
from ssd.compute.ranks import Ranks, lost_peer
from ssd.compute.step import TrainStep, Update
from ssd.errors import LostPeerError
from ssd.ops import REFERENCE


def repeat(compute):
    """Captures on the CPU: the computation runs once, as in a capture, and again at every replay."""
    compute()
    return compute


@pytest.fixture(scope="module")
def graphed() -> tuple[GraphedStep, nn.Module, nn.Module]:
    """A captured step with its model, and an equal model for the eager step."""
    eager = make_model()
    captured = copy.deepcopy(eager)
    FlatGradients(captured, Ranks())
    return GraphedStep(make_step(captured), repeat, batch_size=2, max_boxes=11), captured, eager


def test_capture_leaves_no_trace(graphed) -> None:
    _, captured, eager = graphed
    assert_same(captured.state_dict(), eager.state_dict())
    assert all(not gradient.any() for gradient in gradients(captured).values())


@pytest.mark.parametrize("boxes", [11, 16, 3, 8, 1, 0])
def test_replay_equals_the_eager_step(graphed, boxes: int) -> None:
    """Also after a batch with more boxes left its own in the captured memory."""
    step, captured, eager = graphed
    batch = make_batch(boxes, seed=2)
    addresses = [p.grad.data_ptr() for p in captured.parameters()]
    for model in (captured, eager):
        model.zero_grad(set_to_none=False)
    assert torch.equal(step(batch), make_step(eager)(batch))
    assert_same(gradients(captured), gradients(eager))
    assert_same(captured.state_dict(), eager.state_dict())
    assert [p.grad.data_ptr() for p in captured.parameters()] == addresses


@pytest.mark.parametrize(("boxes", "images"), [(17, 2), (8, 3)])
def test_a_batch_of_another_size_is_refused(graphed, boxes: int, images: int) -> None:
    with pytest.raises(ValueError, match=f"2 images of at most 16 boxes, not for {images} images of {boxes} boxes"):
        graphed[0](make_batch(boxes, 2, images))


def test_captured_graphs_share_their_images(graphed) -> None:
    assert len({inputs.images.data_ptr() for inputs in graphed[0]._inputs.values()}) == 1


def test_boxes_are_padded_to_powers_of_two() -> None:
    assert [padded_boxes(n) for n in (0, 1, 8, 9, 16, 17, 93)] == [8, 8, 8, 16, 16, 32, 128]


def test_the_host_stays_two_replays_ahead_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up graphs: each replay's end is waited for once, in order, when two others have been started after it."""
    log: list[str] = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking, "waiting must not take a core from the threads that decode"

        def record(self) -> None:
            self.name = f"{len([entry for entry in log if entry == 'replay'])}"

        def synchronize(self) -> None:
            log.append(f"wait {self.name}")

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, capture_error_mode: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: log.append("replay")))
    graphs = CudaGraphs(CPU)
    replays = [graphs(lambda: torch.ones(1)) for _ in range(2)]
    for number in range(5):
        replays[number % 2]()
    assert log == ["replay", "replay", "replay", "wait 1", "replay", "wait 2", "replay", "wait 3"]


class Capturing:
    """Plays capture and replay of a step that counts: at a replay Python does not run, so the host's counters stay."""

    def __init__(self, scaler: LossScaler) -> None:
        self.scaler = scaler
        self.captured: list[Callable[[], Tensor]] = []

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        compute()
        self.captured.append(compute)

        def replay() -> Tensor:
            counts = self.scaler._asked, self.scaler._taken
            result = compute()
            self.scaler._asked, self.scaler._taken = counts
            return result

        return replay


def make_whole(precision: str, optimizer: str = "torch_fused") -> SimpleNamespace:
    """A small model with what a whole step of it is made of."""
    model = make_model()
    fused = optimizer == "torch_fused"
    sgd = make_sgd(model.parameters(), learning_rate=0.5, momentum=0.9, weight_decay=5e-4, fused=fused)
    scaler = LossScaler(sgd, CPU, precision)
    flat = FlatGradients(model, Ranks())
    step = TrainStep(model, REFERENCE, default_boxes(), scaler.backward, CPU)
    return SimpleNamespace(model=model, sgd=sgd, scaler=scaler, step=step, update=Update(sgd, scaler.step, flat))


def state_of(parts: SimpleNamespace) -> dict[str, Tensor]:
    momentum = {f"momentum {n}": one["momentum_buffer"] for n, one in enumerate(parts.sgd.state.values())}
    return {**parts.model.state_dict(), **momentum}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_whole_step_equals_the_eager_one(precision: str) -> None:
    """Weights, statistics, momentum, loss scale and skipped steps, at a changing rate; fp16: the last overflows."""
    eager, parts = make_whole(precision), make_whole(precision)
    before = {name: value.clone() for name, value in state_of(parts).items()}
    whole = WholeStep(parts.step, parts.update, parts.scaler, Capturing(parts.scaler), batch_size=2, max_boxes=8)
    assert_same(state_of(parts), before)
    assert parts.sgd.param_groups[0]["lr"] == 0.5
    assert parts.scaler.state_dict() == eager.scaler.state_dict()
    for number, rate in enumerate((2**-10, 2**-9, 2**-11)):  # float32 has these exactly
        for one in (eager, parts):
            one.sgd.param_groups[0]["lr"] = rate
            if number == 2 and precision == "fp16":  # the scaled gradients leave float32's range
                with torch.no_grad():
                    one.scaler._scaler._scale.fill_(3e38)
        expected = eager.step(make_batch(8, seed=2 + 2 * number))
        eager.update()
        assert torch.equal(whole(make_batch(8, seed=2 + 2 * number)), expected)
        assert_same(state_of(parts), state_of(eager))
    assert parts.scaler.state_dict() == eager.scaler.state_dict()
    assert parts.scaler.skipped() == eager.scaler.skipped() == (precision == "fp16")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_could_hold_a_whole_step(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it waits for the device, the optimizer and the loss scale included."""
    monkeypatch.setattr(sys.modules["ssd.ops.augment"], "ONE_BY_ONE", ())  # as on an accelerator
    parts = make_whole(precision)
    capturing = Capturing(parts.scaler)
    WholeStep(parts.step, parts.update, parts.scaler, capturing, batch_size=2, max_boxes=8)
    parts.sgd.param_groups[0]["lr"] = torch.tensor(0.5)  # as while it is captured
    calls = []
    for _ in range(2):
        with CaptureGuard() as guard:
            capturing.captured[0]()
        calls.append(guard.calls)
    assert calls[0] == calls[1]
    assert any("_fused_sgd_" in name for name, _ in calls[0])


def test_the_guard_finds_the_overflow_flag_that_another_optimizer_reads() -> None:
    parts = make_whole("fp16", "torch")
    parts.step.compute(make_batch(8, seed=2))
    with pytest.raises(CaptureError, match="reads a value back"), CaptureGuard():
        parts.update()


def test_images_are_captured_once_for_each_number_of_them() -> None:
    graphed = GraphedImages(lambda images: (images.sum(), images.amax((1, 2, 3))), repeat, [2, 3], CPU)
    assert graphed._inputs[2].data_ptr() == graphed._inputs[3].data_ptr()
    for count in (3, 2, 3):
        images = torch.randint(0, 256, (count, 300, 300, 3), dtype=torch.uint8)
        total, most = graphed(images)
        assert total == images.sum()
        assert torch.equal(most, images.amax((1, 2, 3)))
    with pytest.raises(ValueError, match="captured for 3, 2 images, not for 1"):
        graphed(images[:1])


def test_a_replay_that_does_not_end_is_a_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """nccl's watch does not see a graph's collectives, so the host looks at the clock."""
    looked: list[bool] = []
    never = SimpleNamespace(query=lambda: looked.append(True))
    ends = SimpleNamespace(query=lambda: len(looked) > 2 or looked.append(True))
    module = sys.modules["ssd.compute.graphs"]
    module._await(ends, 60.0)
    assert len(looked) == 3
    monkeypatch.setattr("ssd.compute.ranks._silent_peers", lambda ranks: "process 1 on host b")
    with pytest.raises(RuntimeError, match="a replayed step timed out after 0 s") as caught:
        module._await(never, 0.0)
    assert isinstance(lost_peer(caught.value, Ranks(world_size=2)), LostPeerError)
