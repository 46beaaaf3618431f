"""The batch script for Slurm: a job that is requeued finds its folder again. A script stands in for srun."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("restarts", [None, "0", "1"])
def test_a_requeued_job_goes_on_in_its_folder(root: Path, tmp_path: Path, restarts: str | None) -> None:
    runs = tmp_path / "runs with a space"
    for name in ("20250101-000000-slurm-7", "20250102-000000-slurm-7", "20250103-000000-slurm-77"):
        (runs / name).mkdir(parents=True)
    (tmp_path / "srun").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "srun").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SSD_RUNS_DIR": str(runs)}
    environ.pop("SLURM_RESTART_COUNT", None)
    if restarts:
        environ["SLURM_RESTART_COUNT"] = restarts
    command = ["bash", str(root / "base/slurm/run.sub"), "--name", "cpu", "--config", "a b"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[-6:] == ["--restart", "auto", "--name", "cpu", "--config", "a b"]
    folder = Path(words[words.index("--output") + 1])
    assert folder.parent == runs
    assert folder.name.endswith("-slurm-7")
    assert (folder.name == "20250102-000000-slurm-7") == (restarts == "1")
