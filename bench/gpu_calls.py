"""How a trial of bench/gpu_trials.py runs a command, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from measure import ROOT

__all__ = ["NotHere", "TrialFailed", "call"]

END_SECONDS = 20
"""Time in which a trial that took too long is to end by SIGTERM."""


class TrialFailed(Exception):
    """A trial did not show what it should; the message says what it showed."""


class NotHere(Exception):
    """A trial needs what this machine lacks; the message names it."""


def call(command: Sequence[str], left: float, codes: Sequence[int] = (0,), **environ: str) -> str:
    """Run a command from base/; its output. TrialFailed where it ends with another code than `codes`, or takes longer.

    Its processes are ended then: they would hold the card while later trials run.
    """
    with subprocess.Popen(
        command,
        cwd=ROOT / "base",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHON": sys.executable, **environ},
        start_new_session=True,
    ) as run:
        try:
            out, err = run.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGTERM)  # the launcher passes it on to its processes
            try:
                run.communicate(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
            raise TrialFailed(f"not done after {left:.0f} s, and ended") from None
    if run.returncode not in codes:
        tail = "\n".join((out + err).splitlines()[-15:])
        raise TrialFailed(f"exit code {run.returncode}, expected {' or '.join(map(str, codes))}: {tail}")
    return out
