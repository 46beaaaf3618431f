"""A run of a few steps that is started as users start one, to time it: `plan --measure`, and bench/train.py.

Nothing is pretrained, because a step takes as long with any weights. No epoch's end evaluates.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd.config.folders import BASE
from ssd.errors import EXIT_MAX_STEPS, SsdError
from ssd.text import shortened

__all__ = ["INTERVALS", "MOST_STEPS", "enough_steps", "timed_run"]

INTERVALS = 5
"""Logging intervals of a timed run. The first does not count."""
PROBE_STEPS = 10
"""Steps of the run that finds how long a step takes."""
LEAST_STEPS, MOST_STEPS = 25, 400
"""Steps of a timed run, however slow and however fast they are. A process is slow at first."""
ENDLESS = ("--epochs", "100000", "--eval_epochs", "100000", "--checkpoint_interval", "0", "--no-pretrained")
SCRIPT = BASE / "run_training.sh"


def timed_run(keys: Sequence[str], steps: int, folder: Path) -> dict[str, Any]:
    """Train `steps` optimizer steps in the new folder `folder` by run_training.sh; the run's summary.json.

    keys: the command line of the run. Raises SsdError, with the exit code of a run that failed and what it said.
    """
    log_freq = str(max(steps // INTERVALS, 1))
    flags = [*keys, *ENDLESS, "--max_steps", str(steps), "--log_freq", log_freq, "--output", str(folder)]
    environ = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(["bash", str(SCRIPT), *flags], capture_output=True, text=True, env=environ)
    if done.returncode != EXIT_MAX_STEPS:
        said = shortened((done.stdout + done.stderr).strip(), 2000)
        error = SsdError(f"the timing run ended with exit code {done.returncode}, and said:\n{said}")
        error.exit_code = done.returncode or SsdError.exit_code
        raise error
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def enough_steps(keys: Sequence[str], seconds: float, folder: Path) -> int:
    """Steps that a run with these keys makes in `seconds`: a multiple of INTERVALS, LEAST_STEPS to MOST_STEPS.

    A short run in the new folder `folder` tells how long a step takes.
    """
    probe = timed_run(keys, PROBE_STEPS, folder)
    steps = int(seconds * probe["images_per_s"] / probe["global_batch"])
    return min(max(steps // INTERVALS * INTERVALS, LEAST_STEPS), MOST_STEPS)
