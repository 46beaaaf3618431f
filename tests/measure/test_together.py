"""What processes that measure together are given, and what is said of one that fails or never ends."""

from __future__ import annotations

import json
import os

import pytest

from ssd.config.folders import BASE
from ssd.errors import MachineError
from ssd.measure.together import run_together

SHOWN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK", "OMP_NUM_THREADS", "PYTHONPATH")
SAY = f"import json, os; print(json.dumps([os.environ.get(name) for name in {SHOWN}]))"


def test_each_process_is_a_rank_of_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)))
    first, second = (json.loads(output) for output in run_together(["-c", SAY], 2, "a test", 60))
    address, port, size, rank, local, threads, path = first
    assert (address, size, rank, local, threads, path) == ("127.0.0.1", "2", "0", "0", "3", f"{BASE}:elsewhere")
    assert 1024 <= int(port) < 65536
    assert second == [address, port, "2", "1", "1", "3", path]


def test_processes_that_are_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SHOWN[:5]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    said = [json.loads(output) for output in run_together(["-c", SAY], 2, "a test", 60, grouped=False)]
    assert said == [[None] * 5 + ["5", str(BASE)]] * 2


def test_a_process_that_fails_is_quoted() -> None:
    code = "import os, sys; sys.exit('the reason of rank ' + os.environ['RANK'] if os.environ['RANK'] == '1' else 0)"
    with pytest.raises(MachineError) as raised:
        run_together(["-c", code], 2, "a test", 60)
    assert str(raised.value) == "a process of a test ended with exit code 1, and said: the reason of rank 1"


def test_processes_that_never_meet_are_ended() -> None:
    with pytest.raises(MachineError) as raised:
        run_together(["-c", "import time; time.sleep(60)"], 2, "a test", 0.3)
    assert str(raised.value) == "the processes of a test did not meet within 0.3 s"
