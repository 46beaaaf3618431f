"""Fixtures that every test folder shares: where golden numbers and the tiny COCO lie, and how tests use the cores."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


# One thread a test process, set before anything imports torch: the suite runs in parallel, and sums repeat to the bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Under nohup, or in the background of a script, signals come in ignored and children inherit that: tests send them.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden numbers, tiny COCO and published logs, beside the repository; a clone without them skips these tests."""
    folder = Path(os.environ.get("SSD_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(
            f"{folder} is absent: golden numbers and the tiny COCO set lie there (SSD_SHARED names another place)"
        )
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Numbers computed with the original implementation."""
    return shared / "golden"


@pytest.fixture(scope="session")
def tiny_coco(shared: Path) -> Path:
    """100 real COCO images; SSD_TINY_COCO names another copy. Read-only: no test may write here."""
    return Path(os.environ.get("SSD_TINY_COCO", shared / "coco2017-tiny"))
