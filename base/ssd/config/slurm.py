"""Reads the hosts of a run from the variables of a Slurm step: their number, the rank of this one, the name of host 0.

Only a step has SLURM_STEP_ID. So the script that sbatch runs once is never taken for a host of the run. Nor is a shell
of salloc: on many clusters it is a step of one host, whose number is one of those that Slurm reserves. The variables
are those of the step and not of the job (SLURM_JOB_NODELIST), because a step may use fewer hosts than its job has. The
manual page of srun describes them in the section OUTPUT ENVIRONMENT VARIABLES.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import product

from ssd.errors import ConfigError
from ssd.text import counted, shortened

__all__ = ["expand_hosts", "step_values"]

STEP, HOSTS, HOST, NAMES = "SLURM_STEP_ID", "SLURM_STEP_NUM_NODES", "SLURM_NODEID", "SLURM_STEP_NODELIST"
TASKS = "SLURM_STEP_NUM_TASKS"
MOST_STEP = 0xFFFFFFF0
"""The highest number of a step that srun starts: SLURM_MAX_NORMAL_STEP_ID of slurm.h. The shell of salloc is above."""
MOST_HOSTS = 4096
"""The most hosts, which is the upper bound of the key `nodes`."""


def step_values(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yields (variable, key, value as text) for each key that the step sets. Outside a step it yields nothing.

    Raises ConfigError where the step starts more than one launcher on a host.
    """
    step = environ.get(STEP, "")
    if not step or (step.isdecimal() and int(step[:10]) > MOST_STEP):
        return
    hosts, tasks = environ.get(HOSTS), environ.get(TASKS)
    if hosts and tasks and hosts != tasks:
        raise ConfigError(
            f"Slurm's step has {_said(tasks, 'task')} on {_said(hosts, 'host')} ({TASKS}, {HOSTS}), "
            "and one launcher a host is needed, "
            f"which starts that host's processes itself: srun --ntasks-per-node=1; or, by hand in a shell, unset {STEP}"
        )
    for variable, key in ((HOSTS, "nodes"), (HOST, "node_rank")):
        if environ.get(variable):
            yield variable, key, environ[variable]
    if environ.get(NAMES):
        yield NAMES, "master_addr", expand_hosts(environ[NAMES])[0]


def expand_hosts(text: str) -> list[str]:
    """The names in a host list of Slurm: `node[01-03,07],gpu-a` is node01, node02, node03, node07, gpu-a.

    A name may have brackets anywhere, and more than one pair. Leading zeros are kept. Raises ConfigError for anything
    else.
    """
    # A comma inside brackets separates ranges. A comma outside of them separates names.
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
    """All names that one name with brackets means. The numbers of the last bracket change fastest."""
    parts = re.split(r"\[([0-9,-]+)\]", name)  # text and ranges, alternating
    choices = []
    for odd, part in enumerate(parts):
        choices.append(_numbers(part) if odd % 2 else [part])
        if math.prod(map(len, choices)) > MOST_HOSTS:
            raise _no_list(name, f"has more than {MOST_HOSTS} hosts")
    return map("".join, product(*choices))


def _numbers(ranges: str) -> list[str]:
    """The numbers of ranges: `08-10,12` is 08, 09, 10, 12. They have the width of the first number of their range."""
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


def _said(number: str, one: str) -> str:
    return counted(int(number), one) if number.isdecimal() else f"{shortened(number)} {one}s"


def _no_list(text: str, why: str) -> ConfigError:
    return ConfigError(f"{NAMES}: {shortened(text)!r} {why}: give --master_addr")
