"""Slurm itself on this machine: slurmctld and a slurmd on each of two hosts, which are namespaces joined by a cable.

No service of the machine is used or started, and no file of it is changed. All is in a temporary folder, and all ends
with the process that entered the namespaces.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "SSD_SLURM_INSIDE"
"""Environment variable: set in the namespaces."""
NAMES = ("dgx-b", "node09", "node10", "node11", "node20")
"""Five more hosts of Slurm, all of them on node01: what their variables look like is recorded. No run is trained there.
"""
UNUSABLE = re.compile(r"down|unk|drain|\*")
"""In sinfo's state of a node: it takes no job, or does not answer."""
CONF = """
ClusterName=trial
SlurmctldHost=node01
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
SlurmdTimeout=10
ReturnToService=1
SchedulerParameters=bf_interval=3
LaunchParameters=use_interactive_step
InteractiveStepOptions="--interactive --preserve-env sh"
SlurmdParameters=config_overrides
NodeName=node[01-02] CPUs=8 RealMemory=2000 Gres=gpu:2
NodeName={names} NodeHostname=node01 Port=[7001-7005] CPUs=1 RealMemory=2000
PartitionName=runs Nodes=node[01-02] Default=YES
PartitionName=names Nodes={names}
"""
GPUS = "Name=gpu File=/dev/zero\nName=gpu File=/dev/null\n"
"""What Slurm takes for two GPUs on each host."""
SECOND_HOST = (
    *("nsenter", "--net=/run/netns/node02", "unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("sh", "-c", "hostname node02; while :; do sleep 1; done"),
)


def lacking() -> str:
    """What this machine or user lacks for a cluster; "" where nothing."""
    missing = [one for one in ("slurmctld", "slurmd", "srun", "munged", "unshare", "ip") if not shutil.which(one)]
    if missing:
        return f"{', '.join(missing)}: not on PATH. On Debian: apt-get install slurm-wlm munge iproute2"
    return "" if os.geteuid() == 0 else "it must be root, which starts Slurm's daemons and makes network namespaces"


def enter() -> NoReturn:
    """Start this command again in namespaces of its own."""
    words = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ[INSIDE] = "yes"
    os.execvp(words[0], [*words, sys.executable, *sys.argv])


def run(*words: str, check: bool = True) -> str:
    """What a command prints. Raises CalledProcessError where it fails and `check` is set."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT / "base")
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout.strip()


def until(what: str, come: Callable[[], object], seconds: float = 300) -> float:
    """Wait until `come()` is true. Returns the seconds. Raises TimeoutError where it does not come true."""
    begun = time.monotonic()
    while not come():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"after {seconds:g} s not yet: {what}")
        time.sleep(0.1)
    return time.monotonic() - begun


class Cluster:
    """Slurm's daemons on two hosts. folder: where their files are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 node01\n10.77.0.2 node02\n")
        run("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
        run("mount", "-t", "tmpfs", "none", "/run")
        Path("/run/munge").mkdir()
        run("hostname", "node01")
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", "10.77.0.1/32", "dev", "lo")  # it stays when the cable goes
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(folder=folder, names=",".join(NAMES)))
        (folder / "gres.conf").write_text("".join(f"NodeName=node[01-02] {line}\n" for line in GPUS.splitlines()))
        os.environ["SLURM_CONF"] = str(conf)
        (folder / "state").mkdir()
        run("mungekey", "--create", "--keyfile", str(folder / "key"))
        own = [f"--{name}-file={folder}/{name}" for name in ("key", "pid", "seed", "log")]
        run("munged", *own)
        run("slurmctld", "-f", str(conf))
        run("slurmd", "-f", str(conf), "-N", "node01")
        for name in NAMES:
            run("slurmd", "-f", str(conf), "-N", name)
        self.second: subprocess.Popen
        self.start_second()

    def close(self) -> None:
        """End every process of the namespaces but this one, which is their first."""
        if os.getpid() == 1:
            os.kill(-1, signal.SIGKILL)

    def start_second(self) -> None:
        """Switch on node02: its cable, its processes, its slurmd."""
        run("ip", "netns", "add", "node02")
        run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", "node02")
        for prefix, address in (("ip", 1), ("ip -n node02", 2)):
            for words in (f"address add 10.77.0.{address}/24 dev cable", "link set cable up", "link set lo up"):
                run(*f"{prefix} {words}".split())
        self.second = subprocess.Popen(SECOND_HOST)
        until("node02 has its name", lambda: self.on_second("hostname", check=False) == "node02")
        self.start_slurmd()
        until("Slurm has both hosts", lambda: len(found := self.states()) == 2 and not UNUSABLE.search(" ".join(found)))

    def init(self) -> str:
        """The process id of node02's first process, here."""
        return run("pgrep", "--parent", str(self.second.pid), check=False)

    def on_second(self, *words: str, check: bool = True) -> str:
        """What a command prints on node02."""
        return run("nsenter", "--target", self.init(), "--net", "--uts", "--pid", "--mount", *words, check=check)

    def start_slurmd(self) -> None:
        """Start node02's slurmd."""
        self.on_second("slurmd", "-f", os.environ["SLURM_CONF"], "-N", "node02")

    def kill_slurmd(self) -> None:
        """Kill node02's slurmd. The processes of its jobs stay."""
        self.on_second("kill", "-9", (self.folder / "slurmd-node02.pid").read_text().strip())

    def lose_second(self) -> None:
        """Take node02's power: its cable is cut, and then all its processes end."""
        run("ip", "link", "set", "cable", "down")
        os.kill(int(self.init()), signal.SIGKILL)
        self.second.wait()
        run("ip", "link", "delete", "cable")
        run("ip", "netns", "delete", "node02")

    def states(self) -> list[str]:
        """The state of node01 and of node02."""
        return run("sinfo", "-N", "-h", "-p", "runs", "-o", "%t", check=False).split()


class Job:
    """A job of slurm/run.sub. flags: those of sbatch. words: those of the run."""

    def __init__(self, cluster: Cluster, *flags: str, words: tuple[str, ...] = ()) -> None:
        self.cluster = cluster
        output = f"--output={cluster.folder}/%j.out"
        self.id = run("sbatch", "--parsable", output, *flags, "slurm/run.sub", *words)

    def shown(self, key: str) -> str:
        """A field of scontrol's."""
        found = re.search(rf"\b{key}=(\S*)", run("scontrol", "show", "job", "-o", self.id, check=False))
        return found[1] if found else ""

    def said(self) -> str:
        """What the job has printed."""
        path = self.cluster.folder / f"{self.id}.out"
        return path.read_text() if path.exists() else ""

    def run_folder(self) -> Path:
        """The folder of its run, which may not be there yet. Raises RuntimeError where there are several."""
        found = list((self.cluster.folder / "runs").glob(f"*-slurm-{self.id}"))
        if len(found) > 1:
            raise RuntimeError(f"job {self.id} has {len(found)} folders")
        return found[0] if found else Path("/nowhere")

    def processes(self) -> list[str]:
        """The commands of the processes on both hosts that have this job's number in their environment."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if f"SLURM_JOB_ID={self.id}\0" in (place / "environ").read_text(errors="replace"):
                    found.append((place / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return [one for one in found if one]
