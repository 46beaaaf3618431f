"""The launcher keeps exit codes and first errors: a process's own message and code are the run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

LAUNCH = """
import sys
from ssd.config import Config
from ssd.launch import launch_workers
sys.exit(launch_workers(Config(nproc_per_node={processes}, collective_timeout=30), [sys.executable, {script!r}]))
"""
WORKER = """
import os, signal, sys, time
from ssd.errors import DataError, LostPeerError, NotFiniteError
from ssd.launch import run_as_worker

def work():
    rank = int(os.environ["RANK"])
{body}

sys.exit(run_as_worker(work))
"""


def start(root: Path, tmp_path: Path, body: str, processes: int = 2) -> subprocess.Popen:
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(body=textwrap.indent(textwrap.dedent(body), "    ")))
    environ = {**os.environ, "PYTHONPATH": str(root / "base")}
    command = [sys.executable, "-c", LAUNCH.format(processes=processes, script=str(script))]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends(process: subprocess.Popen) -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def test_an_outcome_is_every_worker_s_own_end(root: Path, tmp_path: Path) -> None:
    """A worker that ends with an outcome does not cut off one that still writes."""
    body = f"""
        time.sleep(rank * 1.0)
        open({str(tmp_path)!r} + f"/done{{rank}}", "w").close()
        return 5
    """
    assert ends(start(root, tmp_path, body)) == (5, "")
    assert (tmp_path / "done1").exists()


def test_the_first_error_wins_over_those_it_causes(root: Path, tmp_path: Path) -> None:
    body = """
        if rank == 1:
            time.sleep(0.3)
            raise NotFiniteError("the loss is nan at step 3")
        raise LostPeerError("lost another one")
    """
    code, said = ends(start(root, tmp_path, body))
    assert code == 6
    assert "rank 1" in said
    assert "the loss is nan at step 3" in said
    assert len(said.splitlines()) == 1


def test_the_others_are_ended_promptly(root: Path, tmp_path: Path) -> None:
    body = """
        if rank == 1:
            raise DataError("image 7 is corrupt")
        time.sleep(600)
    """
    begin = time.monotonic()
    code, said = ends(start(root, tmp_path, body))
    assert (code, "image 7 is corrupt" in said) == (3, True)
    assert time.monotonic() - begin < 60  # not a speed: the other worker would sleep for ten minutes


def test_a_defect_shows_its_traceback(root: Path, tmp_path: Path) -> None:
    code, said = ends(start(root, tmp_path, "return {}['missing']", processes=1))
    assert code == 1
    assert "Traceback" in said
    assert "KeyError: 'missing'" in said


def test_a_worker_killed_by_a_signal(root: Path, tmp_path: Path) -> None:
    code, said = ends(start(root, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", processes=1))
    assert code == 128 + signal.SIGKILL
    assert "killed by signal 9" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_ends_its_workers(root: Path, tmp_path: Path, number: int) -> None:
    body = f"""
        open({str(tmp_path)!r} + "/pid", "w").write(str(os.getpid()))
        time.sleep(600)
    """
    process = start(root, tmp_path, body, processes=1)
    pid = tmp_path / "pid"
    for _ in range(600):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.1)
    process.send_signal(number)
    code, _ = ends(process)
    assert code == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
