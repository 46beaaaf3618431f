"""Two processes average the gradients of a narrow model; and what a process says that cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ssd.config import Config
from ssd.errors import MachineError
from ssd.measure.all_reduce import all_reduced, gradient_bytes

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
