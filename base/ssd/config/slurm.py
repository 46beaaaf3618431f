"""What a step of Slurm says about a run's hosts: how many, which one this is, and the first one's name.

Only `srun` sets SLURM_STEP_ID, so that the script which sbatch runs once is never taken for a host of the run. The
variables are the step's, not the job's (SLURM_JOB_NODELIST): a step may use fewer hosts than its job holds. Their
meaning is in the manual page of srun, section OUTPUT ENVIRONMENT VARIABLES.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import product

from ssd.errors import ConfigError
from ssd.text import shortened

__all__ = ["expand_hosts", "step_values"]

STEP, HOSTS, HOST, NAMES = "SLURM_STEP_ID", "SLURM_STEP_NUM_NODES", "SLURM_NODEID", "SLURM_STEP_NODELIST"
TASKS = "SLURM_STEP_NUM_TASKS"
MOST_HOSTS = 4096
"""As many as the key `nodes` takes."""


def step_values(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(variable, key, value as a flag takes it) of each key that the step sets; nothing outside a step.

    ConfigError where the step starts more than one launcher a host.
    """
    if not environ.get(STEP):
        return
    hosts, tasks = environ.get(HOSTS), environ.get(TASKS)
    if hosts and tasks and hosts != tasks:
        raise ConfigError(
            f"Slurm's step has {tasks} tasks on {hosts} hosts ({TASKS}, {HOSTS}), and one launcher a host is needed, "
            f"which starts that host's processes itself: srun --ntasks-per-node=1; or, by hand in a shell, unset {STEP}"
        )
    for variable, key in ((HOSTS, "nodes"), (HOST, "node_rank")):
        if environ.get(variable):
            yield variable, key, environ[variable]
    if environ.get(NAMES):
        yield NAMES, "master_addr", expand_hosts(environ[NAMES])[0]


def expand_hosts(text: str) -> list[str]:
    """Names of a host list as Slurm shortens it: `node[01-03,07],gpu-a` is node01, node02, node03, node07, gpu-a.

    Brackets may stand anywhere and more than once in a name; leading zeros stay. ConfigError for anything else.
    """
    # Commas inside brackets separate ranges, those outside separate names.
    names = re.findall(r"(?:[^\[\],\s]|\[[0-9,-]+\])+", text)
    if not names or ",".join(names) != text:
        raise _no_list(text, "is no list of hosts such as node[01-04,07],login")
    found: list[str] = []
    for name in names:
        found += _expand(name)
        if len(found) > MOST_HOSTS:
            raise _no_list(text, f"has more than {MOST_HOSTS} hosts")
    return found


def _expand(name: str) -> Iterator[str]:
    """One name with its brackets multiplied out, the last bracket running fastest."""
    parts = re.split(r"\[([0-9,-]+)\]", name)  # text and ranges by turns
    choices = []
    for odd, part in enumerate(parts):
        choices.append(_numbers(part) if odd % 2 else [part])
        if math.prod(map(len, choices)) > MOST_HOSTS:
            raise _no_list(name, f"has more than {MOST_HOSTS} hosts")
    return map("".join, product(*choices))


def _numbers(ranges: str) -> list[str]:
    """`08-10,12` is 08, 09, 10, 12: as wide as the first number of the range is written."""
    found: list[str] = []
    for one in ranges.split(","):
        match = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", one)
        first, last = (match[1], match[2] or match[1]) if match else ("1", "0")
        if int(last) < int(first):
            raise _no_list(f"[{ranges}]", "is no list of ranges such as [01-04,07]")
        if len(found) + int(last) - int(first) >= MOST_HOSTS:
            raise _no_list(f"[{ranges}]", f"has more than {MOST_HOSTS} hosts")
        found += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return found


def _no_list(text: str, why: str) -> ConfigError:
    return ConfigError(f"{NAMES}: {shortened(text)!r} {why}: give --master_addr")
