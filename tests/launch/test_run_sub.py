"""The batch script for Slurm: a job that is requeued finds its folder again. A script stands in for srun."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest


def words_of_srun(root: Path, folder: Path, **variables: str) -> list[str]:
    """What run.sub gives to srun, by these variables of Slurm."""
    (folder / "srun").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (folder / "srun").chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environ |= {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **variables}
    command = ["bash", str(root / "base/slurm/run.sub"), "--name", "cpu", "--config", "a b"]
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )


def test_a_step_asks_for_the_gpus_that_its_job_has(root: Path, tmp_path: Path) -> None:
    """By a real Slurm, a job that is exclusive has them all, and a step of it that does not ask has none."""
    first, *gpus, shell, script = words_of_srun(root, tmp_path, SLURM_GPUS_ON_NODE="8")[:4]
    assert (first, gpus, shell, script) == ("--kill-on-bad-exit=0", ["--gpus-per-node=8"], "bash", "run_training.sh")
    assert words_of_srun(root, tmp_path)[:3] == [first, shell, script]


@pytest.mark.parametrize("restarts", [None, "0", "1"])
def test_a_requeued_job_goes_on_in_its_folder(root: Path, tmp_path: Path, restarts: str | None) -> None:
    runs = tmp_path / "runs with a space"
    for name in ("20250101-000000-slurm-7", "20250102-000000-slurm-7", "20250103-000000-slurm-77"):
        (runs / name).mkdir(parents=True)
    variables = {"SSD_RUNS_DIR": str(runs)} | ({"SLURM_RESTART_COUNT": restarts} if restarts else {})
    words = words_of_srun(root, tmp_path, **variables)
    assert words[-7:] == ["--restart", "auto", "--name", "cpu", "--config", "a b", ""]
    folder = Path(words[words.index("--output") + 1])
    assert folder.parent == runs
    assert folder.name.endswith("-slurm-7")
    assert (folder.name == "20250102-000000-slurm-7") == (restarts == "1")


def test_the_page_of_a_real_slurm_has_every_trial_and_none_that_failed(root: Path) -> None:
    page = (root / "docs" / "slurm.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line[:1] == "|"]
    module = ast.parse((root / "tests" / "slurm" / "trial.py").read_text(encoding="utf-8"))
    (trial,) = (one for one in module.body if isinstance(one, ast.ClassDef) and one.name == "Trial")
    acts = [one for one in trial.body if isinstance(one, ast.FunctionDef) and one.name not in ("__init__", "again")]
    assert [what for what, *_ in rows[2:]] == [ast.get_docstring(act) for act in acts]
    assert "not as promised" not in page
    variables = json.loads((root / "tests" / "config" / "slurm_variables.json").read_text(encoding="utf-8"))
    assert f"Slurm {variables['slurm']}" in page
