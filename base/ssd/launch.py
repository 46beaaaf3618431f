"""The launcher behind run_training.sh: one torchrun agent a host, with exit codes and first errors kept.

torchrun's own command turns every code into 1 and prints a page for it; the same engine, called from here, tells which
process failed first and how. A worker that ends in an outcome (target reached, not reached, max_steps) exits with 0 and
leaves its code in a file of the launcher's: a code other than 0 would make the agent end the other workers half-way.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ssd.config import Config
from ssd.errors import EXIT_INTERNAL, EXIT_KILLED, EXIT_LOST_PEER, SsdError

__all__ = ["launch_workers", "run_as_worker"]

OUTCOME = "SSD_OUTCOME_DIR"
"""Environment variable: the launcher's folder where each worker leaves how it ended."""


class Killed(BaseException):
    """A signal asked this process to end; unwinds the run so that its log says so."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = EXIT_KILLED + number


def _raise_killed(number: int, frame: FrameType | None) -> None:
    raise Killed(number)


def run_as_worker(work: Callable[[], int]) -> int:
    """Run `work`, one process of a run; its exit code. Under the launcher the message goes to the launcher's folder."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _raise_killed)
    folder = os.environ.get(OUTCOME)
    if folder is None:
        try:
            return work()
        except Killed as error:
            return error.exit_code
    try:
        code, message, trace = work(), "", ""
        exit_code = 0
    except SsdError as error:
        exit_code = code = error.exit_code
        message, trace = str(error), ""
    except Killed as error:
        exit_code = code = error.exit_code
        message, trace = f"killed by signal {code - EXIT_KILLED}", ""
    except Exception as error:  # a defect of ours: the launcher shows the traceback of the process that failed first
        exit_code = code = EXIT_INTERNAL
        message, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    record = {"code": code, "message": message, "traceback": trace, "time": time.time()}
    rank = os.environ["RANK"]
    part = Path(folder, f"{rank}.part")
    part.write_text(json.dumps(record), encoding="utf-8")
    part.replace(Path(folder, f"{rank}.json"))
    return exit_code


def launch_workers(config: Config, worker: Sequence[str]) -> int:
    """Start this host's processes, each running the command line `worker`; the run's exit code.

    Prints the first error of this host's processes, as "rank R: message". Blocks until all have ended.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // config.nproc_per_node)))
    with tempfile.TemporaryDirectory(prefix="ssd-launch-") as folder:
        os.environ[OUTCOME] = folder
        try:
            elastic_launch(_launch_config(config, folder), worker[0])(*worker[1:])
        except ChildFailedError as error:
            return _report(Path(folder), error.failures)
        except SignalException as error:
            return EXIT_KILLED + int(error.sigval)
        finally:
            del os.environ[OUTCOME]
        return max(int(_read(path)["code"]) for path in Path(folder).glob("*.json"))


def _launch_config(config: Config, folder: str) -> LaunchConfig:
    several = config.nodes > 1
    endpoint = f"{config.master_addr}:{config.master_port}" if several else "localhost:0"
    rendezvous = {"timeout": config.collective_timeout}
    return LaunchConfig(
        min_nodes=config.nodes,
        max_nodes=config.nodes,
        nproc_per_node=config.nproc_per_node,
        run_id=f"ssd-{config.master_port}" if several else uuid.uuid4().hex,
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=endpoint,
        rdzv_configs={**rendezvous, "rank": config.node_rank} if several else rendezvous,
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
        local_addr=None if several else "localhost",
    )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _report(folder: Path, failures: dict[int, ProcessFailure]) -> int:
    """Print the error that came first and return its code; a process that only lost its peer is named last."""
    ends = {int(path.stem): _read(path) for path in folder.glob("*.json") if int(path.stem) in failures}
    for rank, failure in failures.items():
        if rank not in ends:  # ended without a word: a signal (negative code) or a hard exit
            code = EXIT_KILLED - failure.exitcode if failure.exitcode < 0 else failure.exitcode
            said = f"killed by signal {-failure.exitcode}" if failure.exitcode < 0 else f"exited with code {code}"
            ends[rank] = {"code": code, "message": said, "traceback": "", "time": float(failure.timestamp)}
    sigterm = EXIT_KILLED + signal.SIGTERM  # what the agent ends the others with
    order = {EXIT_LOST_PEER: 1, sigterm: 2}
    rank, first = min(ends.items(), key=lambda item: (order.get(int(item[1]["code"]), 0), item[1]["time"]))
    sys.stderr.write(f"{first['traceback']}error: rank {rank} on {socket.gethostname()}: {first['message']}\n")
    return int(first["code"])
