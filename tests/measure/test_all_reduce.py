"""Two processes average the gradients of a narrow model; and what a process says that cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from ssd.config import Config
from ssd.config.folders import BASE
from ssd.errors import MachineError
from ssd.measure import all_reduce, together
from ssd.measure.all_reduce import all_reduced, gradient_bytes, main

NARROW = ["--name", "cpu", "--config", "smoke", "--width", "0.0625"]


def test_what_a_step_communicates() -> None:
    assert gradient_bytes(10, Config(pretrained=False)) == 40
    assert gradient_bytes(10, Config(pretrained=False, allreduce_dtype="bf16")) == 20


@pytest.mark.slow
def test_two_processes_take_some_time() -> None:
    assert 0 < all_reduced(NARROW, 2) < 60


def test_a_process_that_cannot_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho Traceback >&2; echo "no device $LOCAL_RANK of $WORLD_SIZE" >&2; exit 3\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(MachineError, match=r"ended with exit code 3, and said: no device 0 of 2$"):
        all_reduced(NARROW, 2)


class Started:
    """A process that is not started. It says nothing until it is killed, or ends at once with a figure."""

    all: ClassVar[list[Started]] = []
    ends = True

    def __init__(self, command: list[str], env: dict[str, str], **pipes: Any) -> None:
        self.command, self.env, self.returncode, self.told = command, env, 0, [pipes["text"]]
        Started.all.append(self)

    def communicate(self, timeout: int) -> tuple[str, str]:
        if not self.ends:
            raise subprocess.TimeoutExpired(self.command, timeout)
        return f"a line of a library\n{2.5 + len(self.told)}\n", ""

    def kill(self) -> None:
        self.told.append("killed")

    def wait(self) -> None:
        self.told.append("waited for")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    monkeypatch.setattr(together.subprocess, "Popen", Started)
    monkeypatch.setattr(Started, "all", [])
    monkeypatch.setattr(together.os, "sched_getaffinity", lambda process: range(7))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return Started.all


@pytest.mark.parametrize(("path", "expected"), [("", str(BASE)), ("/mine", f"{BASE}:/mine")])
def test_how_the_processes_are_started(
    started: list[Started], monkeypatch: pytest.MonkeyPatch, path: str, expected: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("KEPT", "from the environment")
    assert all_reduced(["--name", "cpu"], 2) == 3.5, "what rank 0 says in its last line"
    assert [one.command for one in started] == [[sys.executable, "-m", "ssd.measure.all_reduce", "--name", "cpu"]] * 2
    ports = {one.env["MASTER_PORT"] for one in started}
    assert len(ports) == 1
    assert 0 < int(ports.pop()) < 65536
    for rank, one in enumerate(started):
        asked = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        asked |= {"PYTHONPATH": expected, "OMP_NUM_THREADS": "3", "KEPT": "from the environment"}
        assert asked.items() <= one.env.items()
        assert one.told == [True, "killed", "waited for"]
    started.clear()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    all_reduced([], 9)
    assert {one.env["OMP_NUM_THREADS"] for one in started} == {"5"}
    monkeypatch.delenv("OMP_NUM_THREADS")
    all_reduced([], 9)
    assert started[-1].env["OMP_NUM_THREADS"] == "1", "no fewer than one"


def test_processes_that_do_not_meet_are_ended(started: list[Started], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Started, "ends", False)
    with pytest.raises(MachineError, match=r"^the processes of an all-reduce did not meet within 120 s$"):
        all_reduced([], 2)
    assert [one.told for one in started] == [[True, "killed", "waited for"]] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_of_the_processes_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    """Two averages warm up. The ten that count take 1 to 10 seconds, and the device half a second each."""
    told: list[str] = []
    now = 0.0

    def passes(word: str, seconds: float) -> None:
        nonlocal now
        told.append(word)
        now += seconds

    class Gradients:
        def __init__(self, model: Any, ranks: Any, dtype: Any) -> None:
            assert ranks is connected

        def average_(self) -> None:
            turn = told.count("average") - 2
            passes("average", turn + 1.0 if turn >= 0 else 99.0)

    connected = SimpleNamespace(
        is_rank_0=rank == 0, barrier=lambda: passes("barrier", 7.0), close=lambda: told.append("close")
    )
    ranks = SimpleNamespace(local_rank=rank, connect=lambda *about: connected)
    monkeypatch.setattr(all_reduce.Ranks, "from_environment", lambda: ranks)
    monkeypatch.setattr(all_reduce, "FlatGradients", Gradients)
    monkeypatch.setattr(all_reduce.time, "perf_counter", lambda: now)
    vendor = all_reduce.load_vendor("cpu")
    waits = SimpleNamespace(synchronize=lambda: passes("synchronize", 0.5))
    monkeypatch.setattr(type(vendor), "abilities", lambda self, device: waits)
    assert main(NARROW) == 0
    assert told == [*["barrier", "average", "synchronize"] * 12, "barrier", "close"]
    assert capsys.readouterr().out == ("6.0\n" if rank == 0 else ""), "the median, 5.5 s, and the half second"
