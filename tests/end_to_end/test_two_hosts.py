"""Two hosts train together, lose each other, and say so.

Where Linux lets us, the hosts are two network namespaces with a cable between them, and names of their own; else they
are two launches on loopback. Both are started by slurm/run.sub, with an `srun` that enters each host in turn.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ssd.errors import EXIT_LOST_PEER, EXIT_NOT_CONVERGED

pytestmark = pytest.mark.slow

NAMES = ("node01", "node02")
# What runs on host 0 until it is killed: it makes host 1, and the cable. No trace is left behind, since the
# namespaces end with their last process; files of the machine are not touched (the mount is the namespace's own).
TWO_NAMESPACES = r"""
set -eu
printf '127.0.0.1 localhost\n10.77.0.1 node01\n10.77.0.2 node02\n' > "$1/hosts"
mount --bind "$1/hosts" /etc/hosts
hostname node01
ip link set lo up
unshare --net --uts sleep 600 &
other=$!
until [ "$(readlink /proc/$other/ns/uts)" != "$(readlink /proc/self/ns/uts)" ]; do sleep 0.05; done
ip link add cable type veth peer name cable netns $other
ip address add 10.77.0.1/24 dev cable
ip link set cable up
nsenter --target $other --net --uts sh -euc '
hostname node02; ip link set lo up; ip address add 10.77.0.2/24 dev cable; ip link set cable up'
echo "$$ $other" > "$1/pids.part"
mv "$1/pids.part" "$1/pids"
wait
"""
# `srun COMMAND`: the command once a host, each with the variables of its step; the exit code is the highest, as srun's.
SRUN = r"""#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST='{names}'
SLURM_NODEID=0 {first} env --chdir="$PWD" "$@" > {folder}/node01.log 2>&1 & a=$!
SLURM_NODEID=1 {second} env --chdir="$PWD" "$@" > {folder}/node02.log 2>&1 & b=$!
echo $a > {folder}/node01.pid; echo $b > {folder}/node02.pid
wait $a; one=$?
wait $b; other=$?
echo "$one $other" > {folder}/codes
exit $(( one > other ? one : other ))
"""


@dataclass
class Pair:
    """Two hosts: what enters each, and how their connection is cut."""

    folder: Path
    namespaces: bool
    entries: list[list[str]] = field(default_factory=lambda: [[], []])

    def cut(self) -> None:
        """Take the cable out; or, on loopback, kill all processes of the second host."""
        if self.namespaces:
            subprocess.run([*self.entries[0], "ip", "link", "set", "cable", "down"], check=True)
            return
        launcher = int((self.folder / "node02.pid").read_text())
        for pid in [launcher, *descendants(launcher)]:
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [pid]
    for one in found:  # grows while it is read
        found += [child for child, parent in parents if parent == one]
    return found[1:]


def enter(pid: str) -> list[str]:
    """The command that runs another in the namespaces of a process."""
    return ["nsenter", "--target", pid, "--user", "--preserve-credentials", "--net", "--uts", "--mount"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("hosts")
    command = ["unshare", "--map-root-user", "--net", "--uts", "--mount", "sh", "-c", TWO_NAMESPACES, "sh", str(folder)]
    try:
        maker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    except OSError as error:
        warnings.warn(f"two launches on loopback stand for two hosts: {error}", stacklevel=1)
        yield Pair(folder, False)
        return
    while not (folder / "pids").exists() and maker.poll() is None:
        time.sleep(0.05)
    if maker.poll() is not None:
        warnings.warn(f"two launches on loopback stand for two hosts: {maker.communicate()[1].strip()}", stacklevel=1)
        yield Pair(folder, False)
        return
    pids = (folder / "pids").read_text().split()
    yield Pair(folder, True, [enter(pid) for pid in pids])
    os.killpg(maker.pid, signal.SIGKILL)
    maker.wait()


def run_sub(root: Path, pair: Pair, python: str, *flags: str) -> subprocess.Popen:
    """Start slurm/run.sub from base/, as sbatch does, with an `srun` of ours."""
    for name in ("codes", *(f"{host}.{kind}" for host in NAMES for kind in ("log", "pid"))):
        (pair.folder / name).unlink(missing_ok=True)
    first, second = (shlex.join(entry) for entry in pair.entries)
    names = "node[01-02]" if pair.namespaces else "localhost,second"
    srun = pair.folder / "bin" / "srun"
    srun.parent.mkdir(exist_ok=True)
    srun.write_text(SRUN.format(names=names, first=first, second=second, folder=pair.folder))
    srun.chmod(0o755)
    environ = {**os.environ, "PATH": f"{srun.parent}:{os.environ['PATH']}", "PYTHON": python}
    environ |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_SUBMIT_DIR": str(root / "base"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(["bash", str(root / "base/slurm/run.sub"), *flags], env=environ, cwd=pair.folder)


def losses(folder: Path) -> list[float]:
    path = folder / "metrics.jsonl"
    records = map(json.loads, path.read_text().splitlines()) if path.exists() else []
    return [record["loss"] for record in records if record["kind"] == "train"]


def said(pair: Pair, host: str) -> str:
    return (pair.folder / f"{host}.log").read_text()


def test_two_hosts_train_as_one_does(
    root: Path, pair: Pair, tmp_path: Path, command: Callable, small: list[str], warm_python: str
) -> None:
    """The same losses, to the bit, by two hosts of one process as by one host of two."""
    flags = [*small, "--epochs", "2", "--eval_epochs", "2"]
    process = run_sub(root, pair, warm_python, *flags, "--output", str(tmp_path / "two"))
    assert process.wait(200) == EXIT_NOT_CONVERGED, said(pair, "node01") + said(pair, "node02")
    assert (pair.folder / "codes").read_text().split() == [str(EXIT_NOT_CONVERGED)] * 2
    one = command("run_training.sh", *flags, "--nproc_per_node", "2", "--output", str(tmp_path / "one"))
    assert one.returncode == EXIT_NOT_CONVERGED, one.stderr
    assert len(losses(tmp_path / "two")) == 4
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["nodes"] == {"value": 2, "from": "environment SLURM_STEP_NUM_NODES"}
    assert config["node_rank"] == {"value": 0, "from": "environment SLURM_NODEID"}
    assert config["master_addr"]["from"] == "environment SLURM_STEP_NODELIST"


def test_a_lost_host_is_named_by_the_others(
    root: Path, pair: Pair, tmp_path: Path, small: list[str], warm_python: str
) -> None:
    """Both sides of a cut cable end with code 8 and one sentence, long before any wait of torch's own."""
    flags = [*small, "--epochs", "100000", "--eval_epochs", "100000", "--collective_timeout", "8"]
    process = run_sub(root, pair, warm_python, *flags, "--output", str(tmp_path / "run"))
    while len(losses(tmp_path / "run")) < 2 and process.poll() is None:
        time.sleep(0.1)
    pair.cut()
    begin = time.monotonic()
    process.wait(200)
    assert time.monotonic() - begin < 60  # not a speed: torch's exit barrier alone would wait for 300 seconds
    first, second = (pair.folder / "codes").read_text().split()
    survivors = {"node01": ("node02", first), "node02": ("node01", second)}
    if not pair.namespaces:
        del survivors["node02"]  # killed
    for host, (lost, code) in survivors.items():
        text = said(pair, host)
        assert int(code) == EXIT_LOST_PEER, text
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, text
        assert "lost" in errors[0]
        assert not pair.namespaces or lost in errors[0]
        assert "Traceback" not in text
        assert "[c10d]" not in text
