"""Keeps the variables that a real Slurm sets. The tests of ssd.config.slurm read them; nobody writes them by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from cluster import NAMES, ROOT, run

KEPT = ROOT / "tests" / "config" / "slurm_variables.json"
LEFT_OUT = re.compile(
    "CONF|SUBMIT|TASK_PID|PORT|GID|UID|USER|IPADDR|COMM_HOST|NAME|TOPOLOGY|UMASK|PRIO|MEM|CLUSTER|ALIASES"
)
"""Variables that are not about hosts and tasks, or have another value on each machine."""
RECORD = """#!/bin/sh
env | grep ^SLURM > {folder}/$1-${{SLURM_PROCID:-0}}.env
"""
PYTHON = """#!/bin/sh
{folder}/record run.sub-$SLURM_JOB_ID
exec {python} "$@"
"""
COMMANDS = {
    "one host of a job of two": "salloc -N2 srun -N1 -n1 -r1",
    "four tasks on two hosts": "srun -N2 -n4",
    "five hosts": f"srun -p names -N{len(NAMES)}",
    "a command of salloc": "salloc -N2",
    "the shell of salloc": "salloc -N2",
    "the script of sbatch": "sbatch --wait -N2 -o /dev/null --wrap",
}


def recording_python(folder: Path) -> str:
    """A command in place of `python` that records the variables of the launchers of run.sub in `folder`."""
    for name, text in (("record", RECORD), ("python", PYTHON)):
        (folder / name).write_text(text.format(folder=folder, python=sys.executable))
        (folder / name).chmod(0o755)
    return str(folder / "python")


def keep_variables(folder: Path, job: str, version: str) -> None:
    """Write KEPT: the variables of each task of `job`, which is one of run.sub on two hosts, and of each command."""
    files = {"run.sub on two hosts": f"run.sub-{job}"}
    for number, (name, command) in enumerate(COMMANDS.items()):
        files[name] = f"command{number}"
        act = f"{folder}/record {files[name]}"
        if "shell" in name:
            subprocess.run(command.split(), input=act, text=True, check=True, capture_output=True)
        else:
            run(*command.split(), *([act] if command.endswith("--wrap") else act.split()))
    kept = []
    for name, file in files.items():
        tasks = [_read(path) for path in sorted(folder.glob(f"{file}-*.env"))]
        kept.append(f"{json.dumps(name)}: [\n  {(',' + chr(10) + '  ').join(map(json.dumps, tasks))}\n ]")
    text = f'{{\n "slurm": "{version}",\n ' + ",\n ".join(kept) + "\n}\n"
    KEPT.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in sorted(path.read_text().splitlines()))
    return {name: value for name, value in pairs if not LEFT_OUT.search(name)}
