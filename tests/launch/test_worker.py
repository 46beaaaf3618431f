"""A process of a run: which signals unwind it, and what it leaves for the launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssd.errors import EXIT_INTERNAL, EXIT_MACHINE
from ssd.launch.worker import OUTCOME, SIGNALS, run_as_worker

WORKER = """
import errno, os, signal, sys
from pathlib import Path
from ssd.launch.worker import run_as_worker

def work():
    {body}
    return 0

sys.exit(run_as_worker(work))
"""


def run(root: Path, tmp_path: Path, body: str, *before: str) -> tuple[int, dict[str, object]]:
    """The exit code of a worker with this body, and what it left."""
    environ = {**os.environ, "PYTHONPATH": str(root / "base"), OUTCOME: str(tmp_path), "RANK": "0"}
    command = [*before, sys.executable, "-c", WORKER.format(body=body)]
    code = subprocess.run(command, env=environ, check=False, capture_output=True).returncode
    return code, json.loads((tmp_path / "0.json").read_text())


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_unwinds_the_run(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    body = f"""
    try:
        os.kill(os.getpid(), {int(number)})
        signal.pause()
    finally:
        Path({str(tmp_path)!r}, "unwound").touch()
    """
    code, left = run(root, tmp_path, body)
    assert (code, left["message"]) == (128 + number, f"killed by signal {int(number)}")
    assert (tmp_path / "unwound").exists()


def test_nohup_is_heeded(root: Path, tmp_path: Path) -> None:
    assert run(root, tmp_path, "os.kill(os.getpid(), signal.SIGHUP)", "nohup")[0] == 0


def test_a_full_disk_is_no_defect(root: Path, tmp_path: Path) -> None:
    code, left = run(root, tmp_path, 'raise OSError(errno.ENOSPC, "No space left on device", "/run/metrics.jsonl")')
    assert (code, left["traceback"]) == (EXIT_MACHINE, "")
    assert str(left["message"]).startswith("/run/metrics.jsonl: No space left on device; make room")


def test_a_defect_leaves_its_traceback(root: Path, tmp_path: Path) -> None:
    code, left = run(root, tmp_path, "return [][0]")
    assert code == EXIT_INTERNAL
    assert "IndexError" in str(left["traceback"])


@pytest.mark.parametrize("code", [5, 128 + signal.SIGUSR2])
def test_a_run_alone_leaves_the_handlers_as_they_were(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may be somebody's own, who called a verb from Python. A signal unwinds the run, not the process."""
    monkeypatch.delenv(OUTCOME, raising=False)
    before = [signal.getsignal(number) for number in SIGNALS]

    def work() -> int:
        assert [signal.getsignal(number) for number in SIGNALS] != before
        if code > 128:
            os.kill(os.getpid(), code - 128)
        return code

    assert run_as_worker(work) == code
    assert [signal.getsignal(number) for number in SIGNALS] == before
