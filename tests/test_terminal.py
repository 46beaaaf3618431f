"""Printing where nobody can read: no exception, and an exit code that stays what it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssd.terminal import unheard

PROGRAM = """
import sys
from ssd.terminal import settle_streams, unheard
for stream in (sys.stdout, sys.stderr):
    with unheard():
        print("x" * 100000, file=stream, flush=True)
with unheard():
    print("left in the buffer")
settle_streams()
sys.exit(5)
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("how", ["reader gone", "disk full", "closed"])
def test_the_exit_code_is_the_program_s(root: Path, stream: str, how: str) -> None:
    environ = {**os.environ, "PYTHONPATH": str(root / "base")}
    number = {"stdout": 1, "stderr": 2}[stream]
    redirection = {"reader gone": f"{number}>&3", "disk full": f"{number}>/dev/full", "closed": f"{number}>&-"}[how]
    reader, writer = os.pipe()
    os.close(reader)
    command = ["bash", "-c", f'"$0" -c "$1" {redirection.replace("&3", f"&{writer}")}', sys.executable, PROGRAM]
    said = subprocess.run(command, env=environ, pass_fds=[writer], capture_output=True, check=False)
    os.close(writer)
    assert said.returncode == 5
    assert b"Traceback" not in said.stdout + said.stderr
    assert b"Exception ignored" not in said.stdout + said.stderr


def test_only_what_a_stream_refuses_is_let_pass() -> None:
    with unheard():
        raise BrokenPipeError
    with unheard():
        "ü".encode("ascii")
    with unheard():
        raise SystemExit(1)  # as rich does at a broken pipe
    with pytest.raises(KeyError), unheard():
        raise KeyError
