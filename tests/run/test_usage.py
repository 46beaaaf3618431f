"""What a run took of its machine: numbers where somebody says them, None where nobody does."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssd.account.timeline import Timeline
from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.run import usage as module
from ssd.run.progress import Clock
from ssd.run.usage import usage

NOBODY = {"max_memory_allocated_mib": None, "compile_s": None, "launches_per_step": None}


def ran(world_size: int = 1, abilities: Any = None, **keys: Any) -> Any:
    """A run that has ended, as far as it is asked; it counts its steps."""
    taken: list[str] = []
    ranks = SimpleNamespace(world_size=world_size, is_rank_0=True, gather=lambda value: [value, (3 * 2**20, 2.0)])
    return SimpleNamespace(
        config=Config(train_batch_size=2, **keys),
        abilities=abilities or Abilities(torch.device("cpu")),
        ranks=ranks if world_size > 1 else Ranks(),
        clock=Clock({}, Timeline()),
        work=SimpleNamespace(
            no_sync=nullcontext,
            step=lambda batch: taken.append("step"),
            whole=(lambda batch: taken.append("whole")) if keys.get("graph_scope") else None,
            update=lambda *, alone: taken.append("update alone" if alone else "update"),
        ),
        taken=taken,
    )


def test_a_cpu_says_how_busy_it_was_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.run.progress.time.perf_counter", lambda: 10.0)
    monkeypatch.setattr("ssd.run.progress.time.process_time", lambda: 4.0)
    run = ran()
    run.clock.start()
    monkeypatch.setattr("ssd.run.progress.time.perf_counter", lambda: 12.0)
    monkeypatch.setattr("ssd.run.progress.time.process_time", lambda: 7.0)
    assert usage(run) == {**NOBODY, "host_cores": 1.5}
    assert run.taken == []


class Played(Abilities):
    """An accelerator that tells its memory."""

    is_host = False  # type: ignore[assignment]
    peak_bytes = 2 * 2**20  # type: ignore[assignment]

    def synchronize(self) -> None: ...


def traced(monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]] | None) -> None:
    """Let torch's profiler have recorded these events, beside the range of the step; None: it cannot record."""

    class Profiler:
        def __init__(self, activities: Any) -> None:
            if events is None:
                raise RuntimeError("another program profiles")

        def __enter__(self) -> Profiler:
            return self

        def __exit__(self, *error: object) -> None: ...

        def export_chrome_trace(self, path: str) -> None:
            step = {"ph": "X", "cat": "user_annotation", "name": "ssd: step", "ts": 0, "dur": 100, "tid": 1, "args": {}}
            Path(path).write_text(json.dumps({"traceEvents": [step, *(events or [])]}))

    monkeypatch.setattr(module, "profile", Profiler)


def event(category: str, name: str, at: float, number: int) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": at, "dur": 5, "tid": 1, "args": {"correlation": number}}


LAUNCHED = [
    event("cuda_runtime", "cudaLaunchKernel", 10, 1),
    event("kernel", "conv", 20, 1),
    event("cuda_runtime", "cudaGraphLaunch", 30, 2),
    event("kernel", "relu", 40, 2),
    event("cuda_runtime", "cudaLaunchKernel", 300, 3),  # behind the step
]
WHOLE = {"cuda_graph": True, "graph_scope": "step", "optimizer": "torch_fused"}
ACCELERATOR = Played(torch.device("cpu"))


def test_launches_are_those_of_one_step_after_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch, LAUNCHED)
    run = ran(abilities=ACCELERATOR, gradient_accumulation_steps=2)
    found = usage(run)
    assert (found["launches_per_step"], found["max_memory_allocated_mib"]) == (2, 2.0)
    assert run.taken == ["step", "step", "update alone"] * 2


def test_a_step_in_one_graph_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch, LAUNCHED[2:4])
    run = ran(abilities=ACCELERATOR, gradient_accumulation_steps=2, **WHOLE)
    assert usage(run)["launches_per_step"] == 1
    assert run.taken == ["step", "whole"] * 2


def test_the_largest_memory_and_the_mean_of_the_cores_are_those_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch, LAUNCHED)
    run = ran(world_size=2, abilities=ACCELERATOR)
    monkeypatch.setattr(run.clock, "cores", lambda: 1.0)
    found = usage(run)
    assert (found["max_memory_allocated_mib"], found["host_cores"], found["launches_per_step"]) == (3.0, 1.5, 2)


@pytest.mark.parametrize(
    ("events", "keys", "ended"),
    [
        (None, {}, True),  # the profiler cannot record
        (LAUNCHED[:1], {}, True),  # it saw no kernel
        (LAUNCHED, {"bn_group": 2, "nproc_per_node": 2}, True),  # a step needs the other rank
        (LAUNCHED, {"ddp": "apex", "nproc_per_node": 2}, True),
        (LAUNCHED, {**WHOLE, "nproc_per_node": 2}, True),  # the graph holds the average over the ranks
        (LAUNCHED, {}, False),  # the run has failed
    ],
)
def test_launches_that_nobody_can_count_are_unknown(
    monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]] | None, keys: dict[str, Any], ended: bool
) -> None:
    traced(monkeypatch, events)
    run = ran(world_size=keys.get("nproc_per_node", 1), abilities=ACCELERATOR, **keys)
    assert usage(run, ended=ended)["launches_per_step"] is None


def test_compiling_is_told_where_it_was_asked_for() -> None:
    run = ran(compile=True)
    with run.clock.timeline.part("compile"):
        pass
    assert usage(run)["compile_s"] == 0.0
