"""The launcher behind run_training.sh: one torchrun agent on each host, with exit codes and the root cause kept.

torchrun's own command turns every exit code into 1 and prints a page about it. This module calls the same agent and
says which process failed first, and how, because each worker writes a file about its end (ssd.launch.worker). The
launchers of several hosts watch each other (ssd.launch.hosts). A lost host ends all of them with one sentence.
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
import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ssd.account.timeline import LAUNCHED, process_started
from ssd.config import Config
from ssd.config.resume import has_checkpoint
from ssd.errors import EXIT_KILLED, EXIT_LOST_PEER, EXIT_MACHINE, was_cut_off
from ssd.launch.hosts import End, Hosts
from ssd.launch.numa import bind
from ssd.launch.worker import LAUNCHER, OUTCOME, SIGNALS
from ssd.signals import handled_by
from ssd.terminal import settle_streams

__all__ = ["launch_workers"]

log = logging.getLogger(__name__)

GRACE = 5.0
"""When another process or host is lost or has failed, this host's processes have so many seconds to end by themselves.
"""
ABORTED = (
    " (abort). If nothing else is said: with nccl torch ends a process so when a collective of its device takes longer "
    "than step_timeout, as after the loss of another process or host"
)
POLL = 0.2
"""Seconds between two checks of this host's processes."""


def launch_workers(config: Config, worker: Sequence[str]) -> int:
    """Start this host's processes, each with the command line `worker`, and wait until all have ended.

    A run that is cut off is started again from its last checkpoint, up to `max_restarts` times. One that has none is
    not, nor is one whose launcher got a signal. A run that goes on says so in its logs, and is no result.

    Returns the run's exit code. Prints the root cause of a failure as one sentence, "rank R on HOST: message". With
    several hosts, each of them prints it. Raises MachineError, ConfigError or LostPeerError where processes cannot be
    started.
    """
    for name in logging.root.manager.loggerDict:  # each of these loggers has a level and a handler of its own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // config.nproc_per_node)))
    words, begun = list(worker), process_started()
    with handled_by(_raise_signal, SIGNALS):
        for restart in range(1, config.max_restarts + 2):
            os.environ[LAUNCHED] = repr(begun)
            end, hosts = _started(config, words)
            del os.environ[LAUNCHED]
            lost = was_cut_off(end.code) and not end.asked
            if not lost or restart > config.max_restarts or not (config.output and has_checkpoint(config.output)):
                break
            _say(end)
            log.warning("restart %d of %d: the run goes on from its last checkpoint", restart, config.max_restarts)
            words, begun = [*worker, "--restart", "auto"], time.perf_counter()
    _say(end)
    settle_streams()
    if hosts is not None and not hosts.close():
        os._exit(end.code)
    return end.code


def _started(config: Config, worker: Sequence[str]) -> tuple[End, Hosts | None]:
    """Start this host's processes once. Returns how they ended, and the hosts where there are several."""
    hosts = None
    try:
        with tempfile.TemporaryDirectory(prefix="ssd-launch-", ignore_cleanup_errors=True) as folder:
            launch = _launch_config(config, folder)
            hosts = Hosts(config) if config.nodes > 1 else None
            if hosts is None:
                end = _run_alone(launch, worker, Path(folder))
            else:
                end = _run_with_others(hosts, launch, worker, Path(folder))
    except SignalException as error:  # a signal outside the agent, while hosts meet or agree on an end
        end = _signalled(error)
    return end, hosts


def _run_agent(launch: LaunchConfig, worker: Sequence[str], folder: Path) -> End:
    """Run this host's processes until all have ended.

    The thread `ender` owns `cut_off` until it is joined. Then this thread owns it.
    """
    os.environ.update({OUTCOME: str(folder), LAUNCHER: str(os.getpid())})
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
        ender.join()
        del os.environ[OUTCOME], os.environ[LAUNCHER]
    if failures:
        return _first_error(folder, failures, cut_off)
    return End(max(int(_read(path)["code"]) for path in folder.glob("*.json")))


def _raise_signal(number: int, frame: FrameType | None) -> None:
    """Do what torchrun's agent does for the signals that it knows: the agent passes the signal on and ends."""
    raise SignalException(f"the launcher got signal {number}", signal.Signals(number))


def _signalled(error: SignalException) -> End:
    return End(EXIT_KILLED + int(error.sigval), f"the launcher got signal {int(error.sigval)}", asked=True)


def _end_hung(folder: Path, done: threading.Event, cut_off: set[int]) -> None:
    """Kill the processes that still run GRACE seconds after one failed. It runs in a thread of its own.

    cut_off: filled with the ranks that are killed. A stopped process, or one that hangs in a collective, reacts to
    SIGKILL only. The agent would send SIGKILL after 30 s, and its record would not tell that kill from any other.
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
    """Whether a process of this host wrote that it failed, or ended without writing anything."""
    gone = [rank for rank, pid in _pids(folder).items() if not Path(f"/proc/{pid}").exists()]
    said = {int(path.stem): _read(path) for path in folder.glob("*.json")}  # read last: a process writes before it ends
    return any(rank not in said for rank in gone) or any(end["message"] for end in said.values())


def _pids(folder: Path) -> dict[int, int]:
    """The process ids of this host by rank, as far as the processes have written them."""
    found: dict[int, int] = {}
    for path in folder.glob("*.pid"):
        with suppress(OSError, ValueError):  # the number is being written, or the folder was removed
            found[int(path.stem)] = int(path.read_text(encoding="utf-8"))
    return found


def _kill(pid: int) -> bool:
    """Send SIGKILL to a process. Returns whether the process existed."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _run_alone(launch: LaunchConfig, worker: Sequence[str], folder: Path) -> End:
    """Run this host's processes where there is no other host."""
    try:
        return _run_agent(launch, worker, folder)
    except (dist.DistError, RendezvousError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        return End(EXIT_MACHINE, f"the processes of the run cannot meet at 127.0.0.1: {reason}")


def _run_with_others(hosts: Hosts, launch: LaunchConfig, worker: Sequence[str], folder: Path) -> End:
    """Run this host's processes while the other hosts run theirs. Returns the end that all hosts agree on."""
    done, cut_off = threading.Event(), threading.Event()
    threading.Thread(target=_watch, args=(hosts, folder, done, cut_off), daemon=True).start()
    try:
        end = _run_agent(launch, worker, folder)
    except RuntimeError as error:  # the agent lost its connection to the store
        reason = str(error).partition("\n")[0]
        end = End(EXIT_LOST_PEER, f"the launcher lost host 0, {hosts.names[0]}: {reason}")
    finally:
        done.set()
    return hosts.agree(replace(end, follows=cut_off.is_set() or end.code == EXIT_LOST_PEER))


def _watch(hosts: Hosts, folder: Path, done: threading.Event, cut_off: threading.Event) -> None:
    """End this host's processes when another host is lost or has failed. It runs in a thread of its own.

    The processes mostly end by themselves. A process that hangs in a collective reacts to SIGKILL only. The agent, when
    it waits at its exit barrier, reacts to no signal. In that case this thread ends the launcher.
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
    # Given nothing, a newer torch asks its accelerator for a NUMA binding, which the device's module may not answer.
    asked: dict[str, Any] = {"numa_options": False} if "numa_options" in LaunchConfig.__dataclass_fields__ else {}
    launch = LaunchConfig(
        **asked,
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
    bind(launch, config.numa_binding)
    return launch


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _first_error(folder: Path, failures: dict[int, ProcessFailure], cut_off: Collection[int] = ()) -> End:
    """The root cause of a failure: the earliest error that is not a consequence of another process's end.

    A consequence is a lost peer, SIGABRT by torch's watch over nccl, or SIGTERM from the agent. It is returned only
    where there is no other error. cut_off: the ranks that the launcher killed, because they did not end after another
    process had failed. They come last.
    """
    ends = {int(path.stem): _read(path) for path in folder.glob("*.json") if int(path.stem) in failures}
    for rank, failure in failures.items():
        if rank not in ends:  # it wrote nothing about its end: a signal (negative code), or a call of _exit
            code = EXIT_KILLED - failure.exitcode if failure.exitcode < 0 else failure.exitcode
            said = f"killed by signal {-failure.exitcode}" if failure.exitcode < 0 else f"exited with code {code}"
            said += ABORTED if failure.exitcode == -signal.SIGABRT else ""
            ends[rank] = {"code": code, "message": said, "traceback": "", "time": float(failure.timestamp)}
    sigterm = EXIT_KILLED + signal.SIGTERM  # the agent ends the other processes with SIGTERM
    order = {EXIT_LOST_PEER: 1, EXIT_KILLED + signal.SIGABRT: 2, sigterm: 3}

    def place(item: tuple[int, dict[str, Any]]) -> tuple[int, float]:
        rank, end = item
        return (4 if rank in cut_off else order.get(int(end["code"]), 0)), end["time"]

    rank, first = min(ends.items(), key=place)
    message = f"rank {rank} on {socket.gethostname()}: {first['message']}"
    return End(int(first["code"]), message, first["traceback"])
