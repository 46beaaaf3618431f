"""The launcher keeps exit codes and first errors: a process's own message and code are the run's."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed.elastic.rendezvous.api import RendezvousError

from ssd.config import Config
from ssd.errors import EXIT_LOST_PEER, EXIT_MACHINE
from ssd.launch import processes as launch
from ssd.launch.hosts import End
from ssd.launch.worker import SIGNALS

LAUNCH = """
import sys
from ssd.config import Config
from ssd.launch.processes import launch_workers
sys.exit(launch_workers(Config(collective_timeout=30, **{keys!r}), [sys.executable, {script!r}]))
"""
WORKER = """
import os, signal, sys, time
from ssd.errors import DataError
from ssd.launch.worker import run_as_worker

def work():
    rank = int(os.environ["RANK"])
{body}

sys.exit(run_as_worker(work))
"""


def start(root: Path, tmp_path: Path, body: str, processes: int = 2, **keys: object) -> subprocess.Popen:
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(body=textwrap.indent(textwrap.dedent(body), "    ")))
    environ = {**os.environ, "PYTHONPATH": str(root / "base")}
    command = [sys.executable, "-c", LAUNCH.format(keys={"nproc_per_node": processes, **keys}, script=str(script))]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends(process: subprocess.Popen) -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    return process.returncode, said


@pytest.mark.slow
def test_an_outcome_is_every_worker_s_own_end(root: Path, tmp_path: Path) -> None:
    """A worker that ends with an outcome does not cut off one that still writes."""
    body = f"""
        time.sleep(rank * 1.0)
        open({str(tmp_path)!r} + f"/done{{rank}}", "w").close()
        return 5
    """
    assert ends(start(root, tmp_path, body)) == (5, "")
    assert (tmp_path / "done1").exists()


def test_the_first_error_wins_over_those_it_causes(tmp_path: Path) -> None:
    """Rank 2 failed, and 3 after it; 0 lost a peer even before, 1 was ended by the agent, 4 left no word."""
    ends = {0: (8, "lost rank 2", 1.0), 1: (143, "killed by signal 15", 1.5), 2: (6, "nan at step 3", 2.0)}
    ends[3] = (3, "image 7 is corrupt", 3.0)
    for rank, (code, message, at) in ends.items():
        record = {"code": code, "message": message, "traceback": "", "time": at}
        (tmp_path / f"{rank}.json").write_text(json.dumps(record))
    failures = {rank: SimpleNamespace(exitcode=-9, timestamp=4) for rank in range(5)}
    found = launch._first_error(tmp_path, failures)
    assert found == End(6, f"rank 2 on {socket.gethostname()}: nan at step 3")
    assert launch._first_error(tmp_path, {4: failures[4]}).message.endswith(": killed by signal 9")
    assert launch._first_error(tmp_path, failures, {2}).code == 3, "an end after the launcher's own kill is no cause"
    del failures[2], failures[3], failures[4]
    assert launch._first_error(tmp_path, failures).code == 8


def test_an_abort_by_torch_s_watch_is_no_cause_where_there_is_one(tmp_path: Path) -> None:
    """nccl's watch ends a process by SIGABRT, some time after another one was lost."""
    failures = {0: SimpleNamespace(exitcode=-6, timestamp=1), 1: SimpleNamespace(exitcode=-9, timestamp=2)}
    assert launch._first_error(tmp_path, failures).code == 137
    alone = launch._first_error(tmp_path, {0: failures[0]})
    assert alone.code == 134
    assert "killed by signal 6 (abort). If nothing else is said: with nccl" in alone.message
    lost = {"code": 8, "message": "lost process 3", "traceback": "", "time": 9.0}
    (tmp_path / "1.json").write_text(json.dumps(lost))
    assert launch._first_error(tmp_path, failures).message.endswith(": lost process 3"), "it knows who was lost"


@pytest.mark.slow
def test_the_others_are_ended_promptly(root: Path, tmp_path: Path) -> None:
    body = """
        if rank == 1:
            raise DataError("image 7 is corrupt")
        time.sleep(600)
    """
    code, said = ends(start(root, tmp_path, body))  # which waits two minutes, and the other worker would sleep for ten
    assert (code, "image 7 is corrupt" in said) == (3, True)


@pytest.mark.slow
def test_a_defect_shows_its_traceback(root: Path, tmp_path: Path) -> None:
    code, said = ends(start(root, tmp_path, "return {}['missing']", processes=1))
    assert code == 1
    assert "Traceback" in said
    assert "KeyError: 'missing'" in said


NO_NAMES = """
import ipaddress, socket
by_address = socket.getaddrinfo

def getaddrinfo(host, *others, **named):
    try:
        ipaddress.ip_address(host or "127.0.0.1")
    except ValueError:
        raise socket.gaierror(socket.EAI_NONAME, f"no name is known here, {{host}} neither") from None
    return by_address(host, *others, **named)

socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.slow
def test_no_name_needs_to_be_resolvable_on_one_host(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Localhost neither: a container's /etc/hosts may be empty."""
    monkeypatch.setitem(globals(), "LAUNCH", NO_NAMES + LAUNCH)
    body = """
        raise DataError(f"meets the others at {os.environ['MASTER_ADDR']}")
    """
    code, said = ends(start(root, tmp_path, body, processes=1))
    assert code == 3, said
    assert "meets the others at 127.0.0.1\n" in said


@pytest.mark.slow
def test_a_worker_killed_by_a_signal(root: Path, tmp_path: Path) -> None:
    code, said = ends(start(root, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", processes=1))
    assert code == 128 + signal.SIGKILL
    assert "killed by signal 9" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGXCPU])
def test_a_signal_to_the_launcher_ends_its_workers(root: Path, tmp_path: Path, number: int) -> None:
    body = f"""
        open({str(tmp_path)!r} + "/pid", "w").write(str(os.getpid()))
        time.sleep(600)
    """
    process = start(root, tmp_path, body, processes=1)
    pid = tmp_path / "pid"
    for _ in range(600):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.1)
    process.send_signal(number)
    code, said = ends(process)
    assert code == 128 + number
    assert "death signal" not in said, "torchrun's own words"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.slow
def test_a_worker_that_hangs_is_not_the_error(root: Path, tmp_path: Path) -> None:
    """Rank 1 is stopped, and hears no signal but SIGKILL; rank 0 loses it. The launcher's kill is no cause."""
    stopped = tmp_path / "stopped"
    body = f"""
        from ssd.errors import LostPeerError
        if rank == 1:
            open({str(stopped)!r}, "w").close()
            os.kill(os.getpid(), signal.SIGSTOP)
        while not os.path.exists({str(stopped)!r}):
            time.sleep(0.1)
        raise LostPeerError("lost process 1 on host a")
    """
    code, said = ends(start(root, tmp_path, body))
    assert (code, said.splitlines()[-1]) == (8, f"error: rank 0 on {socket.gethostname()}: lost process 1 on host a")


@pytest.mark.slow
def test_a_killed_launcher_takes_its_workers_along(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL leaves the launcher no time: the kernel ends its worker, which unwinds and removes the folder."""
    own = tmp_path / "tmp"
    own.mkdir()
    monkeypatch.setenv("TMPDIR", str(own))
    body = f"""
        try:
            open({str(tmp_path)!r} + "/running", "w").close()
            time.sleep(600)
        finally:
            open({str(tmp_path)!r} + "/unwound", "w").close()
    """
    process = start(root, tmp_path, body, processes=1)
    running = tmp_path / "running"
    assert _comes(running.exists)
    process.kill()
    process.wait()
    assert _comes((tmp_path / "unwound").exists)
    assert _comes(lambda: not list(own.glob("ssd-launch-*")))


def _comes(what: Callable[[], bool]) -> bool:
    """Whether it becomes true, within a minute."""
    for _ in range(600):
        if what():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_host_that_fails_tells_the_others_why(root: Path, tmp_path: Path) -> None:
    """The process of host 0 has ended well, and its launcher waits for host 1, which then fails."""
    body = """
        if rank == 0:
            return 5
        time.sleep(1)
        raise DataError("image 7 is corrupt")
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        keys = {"nodes": 2, "master_addr": "127.0.0.1", "master_port": one.getsockname()[1]}
    begin = time.monotonic()
    pair = [start(root, tmp_path, body, processes=1, node_rank=rank, **keys) for rank in (0, 1)]
    (first, first_said), (second, second_said) = (ends(one) for one in pair)
    assert (first, second) == (3, 3)
    name = socket.gethostname()
    assert second_said == f"error: rank 1 on {name}: image 7 is corrupt\n"
    assert first_said == f"error: host 1 ({name}) failed: rank 1 on {name}: image 7 is corrupt\n"
    assert time.monotonic() - begin < 120  # not a speed: the agent's exit barrier would hold the first for 300 seconds


@dataclass
class StandIn:
    """Hosts of which one has failed."""

    end: End
    interval: float = 0.01
    asked: list[int] = field(default_factory=list)

    def verdict(self) -> End | None:
        self.asked.append(1)
        return self.end if len(self.asked) > 3 else None


def test_a_process_that_hangs_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.1)
    hung = subprocess.Popen(["sleep", "600"])
    (tmp_path / "0.pid").write_text(str(hung.pid))
    (tmp_path / "1.pid").write_text("")  # just being written
    done, cut_off = threading.Event(), threading.Event()
    watch = threading.Thread(target=launch._watch, args=(StandIn(End(8, "lost")), tmp_path, done, cut_off))
    watch.start()
    assert hung.wait(60) == -signal.SIGKILL
    done.set()
    watch.join(60)
    assert cut_off.is_set()


@pytest.mark.slow
def test_a_launcher_that_hangs_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The agent waits for a store that will not answer: the watch says the sentence and leaves the process."""
    monkeypatch.setattr(launch, "GRACE", 0.1)
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    folder = tmp_path / "launch"
    folder.mkdir()
    launch._watch(StandIn(End(8, "host 1 (b) was lost")), folder, threading.Event(), threading.Event())
    assert codes == [8]
    assert capsys.readouterr().err == "error: host 1 (b) was lost\n"
    assert not folder.exists()


def test_processes_that_end_by_themselves_are_left_alone(tmp_path: Path) -> None:
    done, cut_off = threading.Event(), threading.Event()
    done.set()
    launch._watch(StandIn(End(8, "lost")), tmp_path, done, cut_off)
    assert not cut_off.is_set()


CUT = End(137, "rank 0 on here: killed by signal 9")


def restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[End], *, saved: bool = True
) -> tuple[int, list[list[str]]]:
    """Launch a run of two restarts whose processes end as `found` says; its exit code, and the words of each start."""
    if saved:
        (tmp_path / "checkpoint.pt").touch()
    starts: list[list[str]] = []

    def started(config: Config, words: list[str]) -> tuple[End, None]:
        starts.append(words)
        return found[len(starts) - 1], None

    monkeypatch.setattr(launch, "_started", started)
    return launch.launch_workers(Config(max_restarts=2, output=tmp_path), ["python", "train"]), starts


@pytest.mark.parametrize(
    ("found", "code", "starts"),
    [
        ([CUT, End(0)], 0, 2),
        ([CUT, End(8, "lost"), End(1, "defect"), End(0)], 1, 3),
        ([End(7, "memory"), End(4)], 4, 2),
        ([End(3, "image 7 is corrupt")], 3, 1),
        ([End(2, "key")], 2, 1),
        ([End(6, "nan")], 6, 1),
        ([End(143, "the launcher got signal 15", asked=True)], 143, 1),
    ],
)
def test_a_run_that_is_cut_off_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, caplog, found: list[End], code: int, starts: int
) -> None:
    again = ["python", "train", "--restart", "auto"]
    assert restarted(tmp_path, monkeypatch, found) == (code, [["python", "train"], again, again][:starts])
    messages = [f"error: {end.message}" for end in found[:starts] if end.message]
    assert capsys.readouterr().err.splitlines() == messages
    said = [f"restart {n} of 2: the run goes on from its last checkpoint" for n in (1, 2)]
    assert [record.message for record in caplog.records] == said[: starts - 1]


def test_a_run_without_a_checkpoint_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert restarted(tmp_path, monkeypatch, [CUT], saved=False) == (137, [["python", "train"]])


@pytest.mark.slow
def test_a_killed_process_is_started_again(root: Path, tmp_path: Path) -> None:
    body = f"""
        from pathlib import Path
        if sys.argv[1:] != ["--restart", "auto"]:
            Path({str(tmp_path)!r}, "checkpoint.pt").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 4
    """
    code, said = ends(start(root, tmp_path, body, processes=1, max_restarts=1, output=str(tmp_path)))
    assert code == 4
    assert "killed by signal 9" in said
    assert "restart 1 of 1: the run goes on from its last checkpoint" in said


def test_a_colon_in_the_repository_s_path_is_said(root: Path, tmp_path: Path) -> None:
    """PYTHONPATH separates folders by colons, and has no way to write one."""
    base = tmp_path / "a:b" / "base"
    base.mkdir(parents=True)
    script = base / "run_training.sh"
    script.write_text((root / "base" / "run_training.sh").read_text(encoding="utf-8"), encoding="utf-8")
    ended = subprocess.run(["bash", str(script), "--name", "cpu"], check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the path of this repository has a colon")
    assert str(base.parent) in ended.stderr


class Others:
    """The other hosts, as far as a launcher asks them."""

    names = ("first", "second")
    interval = 0.0
    closes = True

    def __init__(self, config: Config) -> None:
        self.told: list[End] = []

    def verdict(self) -> None:
        return None

    def agree(self, end: End) -> End:
        self.told.append(end)
        return replace(end, message=f"agreed: {end.message}")

    def close(self) -> bool:
        return self.closes


@pytest.fixture
def lone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher whose processes are not started."""
    monkeypatch.setattr(launch, "_launch_config", lambda config, folder: f"launch in {Path(folder).is_dir()}")
    monkeypatch.setattr(launch, "Hosts", Others)
    monkeypatch.setattr(launch, "settle_streams", lambda: None)


def test_what_surrounds_the_processes_is_set_and_put_back(
    lone: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signal that was ignored stays so. torch's own agents say nothing; other loggers do."""
    seen: dict[str, Any] = {}

    def run(config: object, worker: list[str], folder: Path) -> End:
        seen.update(launch=config, worker=worker, folder=folder.is_dir(), threads=os.environ["OMP_NUM_THREADS"])
        seen["handlers"] = {number: signal.getsignal(number) for number in SIGNALS}
        return End(7, "it failed", "Traceback\n")

    agent, other = logging.getLogger("torch.distributed.elastic.agent"), logging.getLogger("torch.distributed.other")
    levels = agent.level, other.level
    monkeypatch.setattr(launch, "_run_alone", run)
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda process: range(7))
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ignored, *_ = SIGNALS
    signal.signal(ignored, signal.SIG_IGN)
    try:
        assert launch.launch_workers(Config(pretrained=False, nproc_per_node=2), ["python", "-m"]) == 7
        assert signal.getsignal(ignored) is signal.SIG_IGN
        assert {number: signal.getsignal(number) for number in SIGNALS if number != ignored} == {
            number: was for number, was in before.items() if number != ignored
        }
        assert (agent.level, other.level) == (logging.CRITICAL, levels[1])
        wanted = {"launch": "launch in True", "worker": ["python", "-m"], "folder": True, "threads": "3"}
        assert {key: seen[key] for key in wanted} == wanted
        assert seen["handlers"].pop(ignored) is signal.SIG_IGN
        assert set(seen["handlers"].values()) == {launch._raise_signal}
        monkeypatch.delenv("OMP_NUM_THREADS")
        launch.launch_workers(Config(pretrained=False, nproc_per_node=9), ["python"])
        assert seen["threads"] == "1"
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        launch.launch_workers(Config(pretrained=False), ["python"])
        assert seen["threads"] == "5"
    finally:
        agent.setLevel(levels[0])
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "Traceback\nerror: it failed\n" * 3


def test_a_signal_while_hosts_meet_is_the_end(
    lone: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "_run_alone", lambda *about: launch._raise_signal(15, None))
    assert launch.launch_workers(Config(pretrained=False), ["python"]) == 143
    assert capsys.readouterr().err == "error: the launcher got signal 15\n"


@pytest.mark.parametrize("closes", [True, False])
def test_hosts_that_cannot_be_left_in_order_are_left_at_once(
    lone: None, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    left: list[int] = []
    monkeypatch.setattr(Others, "closes", closes)
    monkeypatch.setattr(launch, "_run_with_others", lambda hosts, *about: End(6 if type(hosts) is Others else 1))
    monkeypatch.setattr(launch.os, "_exit", left.append)
    assert launch.launch_workers(Config(pretrained=False, nodes=2, master_addr="first"), ["python"]) == 6
    assert left == ([] if closes else [6])


def test_hosts_are_told_how_this_one_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(result: Any) -> End:
        def run(*about: object) -> End:
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(launch, "_run_agent", run)
        return launch._run_with_others(Others(Config(pretrained=False)), None, ["python"], tmp_path)  # type: ignore

    assert ends(End(3, "bad data")) == End(3, "agreed: bad data", follows=False)
    assert ends(End(EXIT_LOST_PEER, "gone")) == End(EXIT_LOST_PEER, "agreed: gone", follows=True)
    lost = ends(RuntimeError("reset by peer\nand a stack"))
    assert lost == End(EXIT_LOST_PEER, "agreed: the launcher lost host 0, first: reset by peer", follows=True)


def test_processes_that_cannot_meet_on_one_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(error: Exception) -> End:
        def run(*about: object) -> End:
            raise error

        monkeypatch.setattr(launch, "_run_agent", run)
        return launch._run_alone(None, ["python"], tmp_path)  # type: ignore[arg-type]

    cause = RendezvousError("outer")
    cause.__cause__ = OSError("in use\nmore")
    words = "the processes of the run cannot meet at 127.0.0.1: "
    assert ends(cause) == End(EXIT_MACHINE, words + "in use")
    assert ends(RendezvousError("no port")) == End(EXIT_MACHINE, words + "no port")


def test_the_launch_of_one_host_and_of_several() -> None:
    one = launch._launch_config(Config(pretrained=False, nproc_per_node=3, collective_timeout=9.5), "/tmp")
    about = (one.min_nodes, one.max_nodes, one.nproc_per_node, one.max_restarts, one.rdzv_backend, one.rdzv_endpoint)
    assert about == (1, 1, 3, 0, "c10d", "127.0.0.1:0")
    assert (one.rdzv_configs["timeout"], "rank" in one.rdzv_configs, one.local_addr) == (10, False, "127.0.0.1")
    assert len(one.run_id) == 32
    keys = {"nodes": 2, "node_rank": 1, "master_addr": "first", "master_port": 4711}
    several = launch._launch_config(Config(pretrained=False, **keys), "/tmp")
    about = (several.min_nodes, several.max_nodes, several.rdzv_backend, several.rdzv_endpoint, several.run_id)
    assert about == (2, 2, "static", "first:4711", "ssd-4711")
    assert (several.rdzv_configs["rank"], several.local_addr) == (1, None)


def test_what_the_files_of_processes_say(tmp_path: Path) -> None:
    """A process that is gone without a word has failed, and one that says why. One that ended well has not."""
    (tmp_path / "0.pid").write_text(str(os.getpid()))
    (tmp_path / "1.pid").write_text("")  # it is being written
    assert launch._pids(tmp_path) == {0: os.getpid()}
    assert not launch._has_failed(tmp_path)
    (tmp_path / "0.json").write_text(json.dumps({"code": 0, "message": ""}))
    assert not launch._has_failed(tmp_path)
    (tmp_path / "2.pid").write_text("999999999")
    assert launch._has_failed(tmp_path)
    (tmp_path / "2.json").write_text(json.dumps({"code": 0, "message": ""}))
    assert not launch._has_failed(tmp_path)
    (tmp_path / "0.json").write_text(json.dumps({"code": 3, "message": "bad data"}))
    assert launch._has_failed(tmp_path)
    assert not launch._kill(999999999)
