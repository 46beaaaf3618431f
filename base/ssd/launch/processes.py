"""The launcher behind run_training.sh: one torchrun agent a host, with exit codes and first errors kept.

torchrun's own command turns every code into 1 and prints a page for it; the same engine, called from here, tells which
process failed first and how: each worker leaves word of its end (ssd.launch.worker). Between hosts the launchers watch
each other (ssd.launch.hosts): a lost host ends all of them with one sentence.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ssd.account.timeline import LAUNCHED, process_started
from ssd.config import Config
from ssd.errors import EXIT_KILLED, EXIT_LOST_PEER, MachineError
from ssd.launch.hosts import End, Hosts
from ssd.launch.worker import LAUNCHER, OUTCOME, SIGNALS
from ssd.terminal import settle_streams

__all__ = ["launch_workers"]

GRACE = 5.0
"""Seconds that a host's own processes have to end by themselves when another process or host is lost or has failed."""
POLL = 0.2
"""Seconds between two looks at this host's processes."""


def launch_workers(config: Config, worker: Sequence[str]) -> int:
    """Start this host's processes, each running the command line `worker`; the run's exit code.

    Prints the first error as one sentence, "rank R on HOST: message"; where several hosts run, each prints it. Blocks
    until all have ended. Raises MachineError, ConfigError or LostPeerError where processes cannot even be started.
    """
    for name in logging.root.manager.loggerDict:  # each has a level and a handler of its own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // config.nproc_per_node)))
    heard = {number: was for number in SIGNALS if (was := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in heard:  # nohup has SIGHUP ignored
        signal.signal(number, _raise_signal)
    hosts = None
    try:
        with tempfile.TemporaryDirectory(prefix="ssd-launch-", ignore_cleanup_errors=True) as folder:
            launch = _launch_config(config, folder)
            hosts = Hosts(config) if config.nodes > 1 else None
            if hosts is None:
                end = _run_agent(launch, worker, Path(folder))
            else:
                end = _run_with_others(hosts, launch, worker, Path(folder))
    except SignalException as error:  # outside the agent: while hosts meet, or agree
        end = _signalled(error)
    for number, handler in heard.items():
        signal.signal(number, handler)
    _say(end)
    settle_streams()
    if hosts is not None and not hosts.close():
        os._exit(end.code)
    return end.code


def _run_agent(launch: LaunchConfig, worker: Sequence[str], folder: Path) -> End:
    """Run this host's processes to their end."""
    os.environ.update({OUTCOME: str(folder), LAUNCHER: str(os.getpid()), LAUNCHED: repr(process_started())})
    done, cut_off = threading.Event(), set[int]()
    ender = threading.Thread(target=_end_hung, args=(folder, done, cut_off), daemon=True)
    ender.start()
    failures: dict[int, ProcessFailure] = {}
    try:
        elastic_launch(launch, worker[0])(*worker[1:])
    except ChildFailedError as error:
        failures = error.failures
    except SignalException as error:
        return _signalled(error)
    finally:
        done.set()
        ender.join()  # from here on `cut_off` is this thread's
        del os.environ[OUTCOME], os.environ[LAUNCHER], os.environ[LAUNCHED]
    if failures:
        return _first_error(folder, failures, cut_off)
    return End(max(int(_read(path)["code"]) for path in folder.glob("*.json")))


def _raise_signal(number: int, frame: FrameType | None) -> None:
    """As torchrun's agent does for the signals that it knows: it sends the signal on to the processes, and ends."""
    raise SignalException(f"the launcher got signal {number}", signal.Signals(number))


def _signalled(error: SignalException) -> End:
    return End(EXIT_KILLED + int(error.sigval), f"the launcher got signal {int(error.sigval)}")


def _end_hung(folder: Path, done: threading.Event, cut_off: set[int]) -> None:
    """Kill the processes that still run GRACE after one failed; a thread of its own. `cut_off`: the ranks killed.

    A stopped process, or one that hangs in a collective, hears no signal but SIGKILL. The agent would send it after 30
    s, and could not tell its own kill from another's.
    """
    while not _has_failed(folder):
        if done.wait(POLL):
            return
    if done.wait(GRACE):
        return
    for rank, pid in _pids(folder).items():
        if not (folder / f"{rank}.json").exists() and _kill(pid):
            cut_off.add(rank)


def _has_failed(folder: Path) -> bool:
    """Whether a process of this host said that it failed, or ended without a word."""
    gone = [rank for rank, pid in _pids(folder).items() if not Path(f"/proc/{pid}").exists()]
    said = {int(path.stem): _read(path) for path in folder.glob("*.json")}  # after: a process leaves it before it ends
    return any(rank not in said for rank in gone) or any(end["message"] for end in said.values())


def _pids(folder: Path) -> dict[int, int]:
    """This host's process ids by rank, of those that have written theirs."""
    found: dict[int, int] = {}
    for path in folder.glob("*.pid"):
        with suppress(OSError, ValueError):  # its number is being written, or the folder removed
            found[int(path.stem)] = int(path.read_text(encoding="utf-8"))
    return found


def _kill(pid: int) -> bool:
    """Send SIGKILL to a process; whether it was there."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _run_with_others(hosts: Hosts, launch: LaunchConfig, worker: Sequence[str], folder: Path) -> End:
    """Run this host's processes while the other hosts run theirs; the end that all agree on."""
    done, cut_off = threading.Event(), threading.Event()
    threading.Thread(target=_watch, args=(hosts, folder, done, cut_off), daemon=True).start()
    try:
        end = _run_agent(launch, worker, folder)
    except RuntimeError as error:  # the agent lost the store
        reason = str(error).partition("\n")[0]
        end = End(EXIT_LOST_PEER, f"the launcher lost the first host, {hosts.names[0]}: {reason}")
    finally:
        done.set()
    return hosts.agree(replace(end, follows=cut_off.is_set() or end.code == EXIT_LOST_PEER))


def _watch(hosts: Hosts, folder: Path, done: threading.Event, cut_off: threading.Event) -> None:
    """End this host's processes when another host is lost or failed; a thread of its own.

    They mostly end by themselves. One that hangs in a collective hears no signal but SIGKILL, and the agent at its exit
    barrier none at all: then the launcher leaves from here.
    """
    while (verdict := hosts.verdict()) is None:
        if done.wait(hosts.interval):
            return
    if done.wait(GRACE):
        return
    cut_off.set()
    for _ in range(4):
        for pid in _pids(folder).values():
            _kill(pid)
        if done.wait(0.5):
            return
    _say(verdict)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(verdict.code)


def _say(end: End) -> None:
    if end.message:
        sys.stderr.write(f"{end.traceback}error: {end.message}\n")
        sys.stderr.flush()


def _launch_config(config: Config, folder: str) -> LaunchConfig:
    several = config.nodes > 1
    rendezvous: dict[str, Any] = {"timeout": math.ceil(config.collective_timeout)}
    launch = LaunchConfig(
        min_nodes=config.nodes,
        max_nodes=config.nodes,
        nproc_per_node=config.nproc_per_node,
        run_id=f"ssd-{config.master_port}" if several else uuid.uuid4().hex,
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=f"{config.master_addr}:{config.master_port}" if several else "127.0.0.1:0",
        rdzv_configs={**rendezvous, "rank": config.node_rank} if several else rendezvous,
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
        local_addr=None if several else "127.0.0.1",
    )
    _bind(launch, config.numa_binding)
    return launch


def _bind(launch: LaunchConfig, mode: str) -> None:
    """Set torchrun's NUMA binding. MachineError where it is asked for and this torch or machine has none.

    Left alone, a newer torch may choose a binding by itself: "none" means none.
    """
    known = hasattr(launch, "numa_options")
    if mode == "none":
        if known:
            launch.numa_options = None
        return
    missing = None if known else f"torch {torch.__version__} has no NUMA binding"
    if not missing:
        from torch.numa.binding import AffinityMode, NumaOptions  # newer than the oldest torch that runs this

        if mode not in {one.value for one in AffinityMode}:
            missing = f"torch {torch.__version__} does not know it"
        elif shutil.which("numactl") is None:
            missing = "the command numactl is not installed"
        elif not torch.accelerator.is_available():
            missing = "torch sees no accelerator to bind near to"
    if missing:
        raise MachineError(f"numa_binding = {mode}: {missing}. Remedy: provide it, or set numa_binding = none.")
    launch.numa_options = NumaOptions(affinity_mode=AffinityMode(mode))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _first_error(folder: Path, failures: dict[int, ProcessFailure], cut_off: Collection[int] = ()) -> End:
    """The error that came first. One that another process brought about is named only where no other is known.

    cut_off: ranks that the launcher itself killed, since they did not end after another's failure.
    """
    ends = {int(path.stem): _read(path) for path in folder.glob("*.json") if int(path.stem) in failures}
    for rank, failure in failures.items():
        if rank not in ends:  # ended without a word: a signal (negative code) or a hard exit
            code = EXIT_KILLED - failure.exitcode if failure.exitcode < 0 else failure.exitcode
            said = f"killed by signal {-failure.exitcode}" if failure.exitcode < 0 else f"exited with code {code}"
            ends[rank] = {"code": code, "message": said, "traceback": "", "time": float(failure.timestamp)}
    sigterm = EXIT_KILLED + signal.SIGTERM  # what the agent ends the others with
    order = {EXIT_LOST_PEER: 1, sigterm: 2}

    def place(item: tuple[int, dict[str, Any]]) -> tuple[int, float]:
        rank, end = item
        return (3 if rank in cut_off else order.get(int(end["code"]), 0)), end["time"]

    rank, first = min(ends.items(), key=place)
    message = f"rank {rank} on {socket.gethostname()}: {first['message']}"
    return End(int(first["code"]), message, first["traceback"])
