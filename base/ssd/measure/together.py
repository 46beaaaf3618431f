"""Processes of one host that measure something together, started without the launcher: each is a rank of one group."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing

from ssd.config.folders import BASE
from ssd.errors import MachineError
from ssd.text import shortened

__all__ = ["run_together"]


def run_together(words: Sequence[str], processes: int, what: str, timeout: float, *, grouped: bool = True) -> list[str]:
    """Run Python with these words in `processes` processes at once; what each wrote to standard output, by rank.

    Each has its share of the cores as OpenMP's threads, unless OMP_NUM_THREADS is set. grouped: set the variables by
    which they join one process group. Else each is alone. what: what they do, for the error. timeout: seconds. Raises
    MachineError, with what a process said, where one fails or they do not end in time.
    """
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(max(1, len(os.sched_getaffinity(0)) // processes))
    # A path before all others: the package that this process runs is the one that they run.
    path = os.pathsep.join([str(BASE), *filter(None, [os.environ.get("PYTHONPATH")])])
    shared = {"PYTHONPATH": path, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    if grouped:
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, **shared, **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if grouped else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        said = [one.communicate(timeout=timeout) for one in started]
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"the processes of {what} did not meet within {timeout:g} s") from error
    finally:
        for one in started:
            one.kill()
            one.wait()
    for one, (_, errors) in zip(started, said, strict=True):
        if one.returncode:
            words_said = shortened(errors.strip().rpartition("\n")[2], 1000)  # the error itself, below its traceback
            raise MachineError(f"a process of {what} ended with exit code {one.returncode}, and said: {words_said}")
    return [output for output, _ in said]
