"""Trials: a child that has imported torch is broken at a call, its command is given again, and both are judged."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EDQUOT, EIO, EMFILE, ENOSPC, EROFS, errorcode
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "base") not in sys.path:
    sys.path.insert(0, str(ROOT / "base"))

KILL, KILL_HALF, FAIL_ONCE, FAIL_ON = 1, 2, 3, 4
"""What the shim does at a call: SIGKILL before it or amid a write; fail once, or from there on."""
FAULTS = {ENOSPC: FAIL_ON, EDQUOT: FAIL_ON, EROFS: FAIL_ON, EIO: FAIL_ONCE, EMFILE: FAIL_ONCE}
"""A full disk stays full, and a read-only one read-only. A broken sector and a lack of descriptors are of a moment."""
NOT_CONVERGED, MACHINE = 4, 7
"""Exit codes: of the small run, whose target is out of reach; of a machine that lacks something."""

ALIKE = (
    *("--config", "smoke", "--width", "0.125", "--train_batch_size", "2", "--seed", "5", "--log_freq", "1"),
    *("--checkpoint_interval", "1", "--keep_best", "--telemetry_interval", "0", "--restart", "auto"),
)
TRAIN = (*ALIKE, "--synthetic_samples", "8", "--epochs", "2", "--eval_epochs", "2")
"""A run of 8 steps that saves a checkpoint, evaluates, and saves the best one and another checkpoint."""
LONGER = (*ALIKE, "--synthetic_samples", "24", "--epochs", "4", "--eval_epochs", "2", "4")
"""A run of 48 steps with four checkpoints and two evaluations."""

SERVER = """
import ctypes, json, os, signal, sys, threading, time
from pathlib import Path
from ssd import cli
from ssd.data.index_cache import load_index
from ssd.prepare.coco import prepare_demo
import ssd.train

SHIM = ctypes.CDLL(sys.argv[1])

def act(task, folder, source):
    if task == "train":
        return cli.main(["train", *source, "--output", folder])
    if task == "index":
        load_index(Path(source), Path(folder))
    elif task == "draw":
        prepare_demo(Path(folder), Path(source), train=3, val=2)
    return 0

for line in sys.stdin:
    asked = json.loads(line)
    begun = time.monotonic()
    child = os.fork()
    if not child:
        said = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1), os.dup2(said, 2)
        # The shim sees its folder alone, and it is armed before the folder exists.
        SHIM.chaos_arm(asked["folder"].encode(), ctypes.c_long(asked["at"]), asked["mode"], asked["error"],
                       asked["opens"], asked["record"].encode())
        code = 1
        try:
            code = act(asked["task"], asked["folder"], asked["source"])
        except BaseException:
            import traceback; traceback.print_exc()
        finally:
            sys.stdout.flush(); sys.stderr.flush()
            os.write(said, f"\\ncalls {SHIM.chaos_calls()}\\n".encode())
            os._exit(code)
    if asked["after"]:
        timer = threading.Timer(asked["after"], os.kill, [child, signal.SIGKILL])
        timer.start()
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its number is its own until it is waited for
        timer.cancel(), timer.join()
    status = os.waitpid(child, 0)[1]
    print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - begun]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a trial ended: the exit code (negative: the signal), its seconds, what it said, and its numbered calls."""

    code: int
    seconds: float
    said: str
    calls: int


class Server:
    """A process that has imported torch and forks a child for each trial. One thread at a time may ask it."""

    def __init__(self, shim: Path, folder: Path) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT / "base"), "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(shim)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said = folder / f"said-{self._process.pid}.txt"

    def run(
        self,
        task: str,
        folder: Path,
        source: Any,
        at: int = 0,
        mode: int = 0,
        error: int = 0,
        record: str = "",
        after: float = 0.0,
    ) -> Ended:
        """One trial. source: what the task works on: flags of a run, an annotation file, or a cache folder.

        after: the seconds after which SIGKILL is sent from outside; 0: it is not.
        """
        assert self._process.stdin
        assert self._process.stdout
        asked = {"task": task, "folder": str(folder), "source": source, "at": at, "mode": mode, "error": error}
        asked |= {"opens": int(error == EMFILE), "record": record, "said": str(self._said), "after": after}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        code, seconds = json.loads(self._process.stdout.readline())
        said = self._said.read_text(errors="replace")
        calls = re.findall(r"^calls (\d+)$", said, re.MULTILINE)
        return Ended(code, seconds, said, int(calls[-1]) if calls else 0)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)


@contextmanager
def servers(folder: Path, count: int = 1) -> Iterator[list[Server]]:
    """A context with `count` servers. Raises CalledProcessError where there is no C compiler that makes the shim."""
    shim = folder / "shim.so"
    command = ["cc", "-O1", "-Wall", "-fPIC", "-shared", "-o", str(shim), str(Path(__file__).with_name("shim.c"))]
    subprocess.run([*command, "-ldl"], check=True)
    made: list[Server] = []
    try:
        made += [Server(shim, folder) for _ in range(count)]
        yield made
    finally:
        for one in made:
            one.close()


# What is compared


TIMED = ("time", "images_per_s", "seconds", "sampled", "ranks", "usage")
OF_A_PROCESS = ("resumed", "set_up", "account", "checkpoint", "start")
"""Fields of times and rates, and records about one process of a run: no two runs have the same."""
DRAWN = ("detections.jpg", "evaluation.json", "trace.json", "report.html")
"""Files that are made after the run is over and its summary is written. A fault there may leave them out, or begun."""


def story(folder: Path) -> dict[str, Any]:
    """What a run came to, without times and rates: tensors, evaluations, events, records, files."""
    from ssd.run.checkpoint import load_checkpoint

    saved = load_checkpoint(folder / "checkpoint.pt")
    tensors = hashlib.sha256()
    for name, tensor in sorted(saved.model.items()):
        tensors.update(name.encode() + tensor.numpy().tobytes())
    for _, state in sorted(saved.optimizer["state"].items()):
        tensors.update(state["momentum_buffer"].numpy().tobytes())
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in (folder / "result_0.txt").open()]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return {
        "step": saved.step,
        "tensors": tensors.hexdigest(),
        "evaluations": saved.evaluations,
        "events": [
            [one["key"], one["value"], {k: v for k, v in one["metadata"].items() if k not in ("file", "lineno")}]
            for one in events
            if one["key"] != "ssd_resumed"
        ],
        "records": [
            {key: value for key, value in one.items() if key not in TIMED}
            for one in records
            if one["kind"] not in OF_A_PROCESS
        ],
        "files": sorted(
            path.name
            for path in folder.iterdir()
            if ".cut-" not in path.name and path.name.removesuffix(".part") not in DRAWN
        ),
        "exit code": json.loads((folder / "summary.json").read_text())["exit_code"],
    }


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file, by its path below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def differences(found: dict[str, Any], whole: dict[str, Any]) -> str:
    """The names of what differs; "" where nothing does."""
    return ", ".join(key for key in sorted({*found, *whole}) if found.get(key) != whole.get(key))


# Trials


@dataclass(frozen=True)
class Subject:
    """What is broken: a task, what it works on, and what it comes to. wanted: what its whole folder comes to."""

    name: str
    task: str
    source: Any
    code: int
    look: Callable[[Path], dict[str, Any]]


class Lab:
    """The folder of all trials, and the servers that make them."""

    def __init__(self, folder: Path, made: list[Server]) -> None:
        self.folder = folder
        self._free = list(made)
        self._lock = threading.Condition()
        self._number = 0

    @contextmanager
    def server(self) -> Iterator[tuple[Server, Path]]:
        """A context with a free server, and a new folder's path, which is removed at the end."""
        with self._lock:
            while not self._free:
                self._lock.wait()
            one = self._free.pop()
            self._number += 1
            place = self.folder / f"trial-{self._number}"
        try:
            yield one, place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            with self._lock:
                self._free.append(one)
                self._lock.notify()

    def whole(self, subject: Subject, record: str = "") -> tuple[Path, dict[str, Any], Ended]:
        """A folder that nothing broke, what it came to, and how it ended."""
        folder = self.folder / f"whole-{subject.name.replace(' ', '-')}"
        with self.server() as (server, _):
            ended = server.run(subject.task, folder, subject.source, record=record)
        if ended.code != subject.code:
            raise RuntimeError(f"{subject.name} ended with {ended.code} where nothing was broken: {ended.said}")
        return folder, subject.look(folder), ended

    def killed(self, subject: Subject, whole: dict[str, Any], at: int, mode: int) -> tuple[float, str]:
        """Kill at a call and give the command again: the seconds of the second, and what was lost."""
        with self.server() as (server, place):
            first = server.run(subject.task, place, subject.source, at=at, mode=mode)
            if first.code != -signal.SIGKILL:
                return 0.0, f"call {at}: was not reached ({first.code})"
            seconds, lost = _once_more(server, place, subject, whole)
            return seconds, lost and f"call {at}: {lost}"

    def killed_twice(self, subject: Subject, whole: dict[str, Any], first: int, second: int) -> tuple[float, str]:
        """Kill at a call, kill the command that goes on, and give it again."""
        with self.server() as (server, place):
            server.run(subject.task, place, subject.source, at=first, mode=KILL)
            server.run(subject.task, place, subject.source, at=second, mode=KILL)
            seconds, lost = _once_more(server, place, subject, whole)
            return seconds, lost and f"calls {first}, {second}: {lost}"

    def killed_from_outside(
        self, subject: Subject, whole: dict[str, Any], moments: Sequence[float]
    ) -> tuple[float, str]:
        """Give the command, and kill it after so many seconds, once for each of `moments`; then give it again.

        A command that is over before its moment is not killed, and the next ones find its run done.
        """
        with self.server() as (server, place):
            codes = [server.run(subject.task, place, subject.source, after=moment).code for moment in moments]
            if not {*codes} <= {-signal.SIGKILL, subject.code}:
                return 0.0, f"killed after {list(moments)} s: ended with {codes}"
            seconds, lost = _once_more(server, place, subject, whole)
            return seconds, lost and f"killed after {list(moments)} s: {lost}"

    def failed(self, subject: Subject, whole: dict[str, Any], at: int, error: int) -> tuple[float, str]:
        """Let a call fail: the command ends with one sentence, or as ever; then give it again without the fault."""
        what = f"{errorcode[error]} at call {at}"
        with self.server() as (server, place):
            first = server.run(subject.task, place, subject.source, at=at, mode=FAULTS[error], error=error)
            if wrong := unreadable(first, subject.code):
                return first.seconds, f"{what}: {wrong}"
            _, lost = _once_more(server, place, subject, whole)
            return first.seconds, lost and f"{what}, then: {lost}"


def _once_more(server: Server, place: Path, subject: Subject, whole: dict[str, Any]) -> tuple[float, str]:
    """Give the command again where nothing breaks it: its seconds, and what was lost."""
    again = server.run(subject.task, place, subject.source)
    if again.code != subject.code:
        return again.seconds, f"ended with {again.code}: {_last_line(again.said)}"
    return again.seconds, differences(subject.look(place), whole)


def unreadable(ended: Ended, expected: int) -> str:
    """What is wrong with how a command ended whose disk failed; "" where it said one sentence with its exit code."""
    errors = re.findall(r"^error: .*", ended.said, re.MULTILINE)
    if ended.code not in (expected, MACHINE):
        return f"ended with {ended.code}: {_last_line(ended.said)}"
    if "Traceback" in ended.said:
        return f"a traceback: {_last_line(ended.said)}"
    if ended.code == MACHINE and len(errors) != 1:
        return f"{len(errors)} errors were said: {_last_line(ended.said)}"
    return ""


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("calls ")]
    return lines[-1][:160] if lines else "nothing was said"
