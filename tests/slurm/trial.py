"""Submits slurm/run.sub to a real Slurm of two hosts on this machine, interrupts it, and looks at what became of it.

    python tests/slurm/trial.py     # make test-slurm: as root; minutes

It writes docs/slurm.md, and keeps the variables that this Slurm sets in tests/config/slurm_variables.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))

from cluster import INSIDE, ROOT, Cluster, Job, enter, lacking, run, until
from lab import differences, story
from variables import keep_variables, recording_python

PAGE = ROOT / "docs" / "slurm.md"
HEAD = """# Runs under a real Slurm

What `make test-slurm` saw last (Slurm {version}; ONLY renews some rows). **No accelerator was involved, and both hosts
are namespaces of one machine.**

`tests/slurm/trial.py` starts slurmctld, munged and a slurmd on each of two hosts: Debian's slurm-wlm, without systemd
or cgroups (proctrack/linuxproc). Each host has a name, a network and process ids of its own, and a cable joins them.
It submits `slurm/run.sub` with a narrow SSD300 on the CPU: a job of two hosts, where a row does not say otherwise.

"As never stopped" means: tensors, evaluations, records and events of the run, each once, are those of the job in the
second row, bit for bit. The seconds are those until all processes of the job had ended, after the interruption where
there is one. A row without a time was read from what its job left.

| what was done | what was seen | time |
|---|---|---|
"""
FLAGS = (
    *("--name", "cpu", "--config", "smoke", "--width", "0.125", "--synthetic_samples", "16", "--train_batch_size", "2"),
    *("--seed", "5", "--checkpoint_interval", "1", "--log_freq", "1", "--telemetry_interval", "0"),
)
WHOLE = (*FLAGS, "--epochs", "8", "--eval_epochs", "8")
"""A run of 32 steps on two hosts, whose target is out of reach."""
UNDER_WAY = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")
ENDLESS = (*FLAGS, "--epochs", "100000", "--eval_epochs", "100000")


class Trial:
    """The trials, in the order of the page. Each returns what was seen and a time in seconds, or raises."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.whole: dict[str, Any] = {}
        self.losses: list[float] = []
        self.reference: Job
        self.stopped: Job

    def one_host(self) -> tuple[str, float]:
        """`sbatch --nodes 1`"""
        job = Job(self.cluster, "--nodes=1", words=WHOLE)
        seconds = ended(job, "FAILED", "4:0")
        steps = json.loads((job.run_folder() / "config.json").read_text())["nodes"]
        sees(steps == {"value": 1, "from": "environment SLURM_STEP_NUM_NODES"}, job, str(steps))
        return "ended with 4, the target not reached", seconds

    def two_hosts(self) -> tuple[str, float]:
        """`sbatch --nodes 2`"""
        job = self.reference = Job(self.cluster, words=WHOLE)
        seconds = ended(job, "FAILED", "4:0")
        self.whole, self.losses = story(job.run_folder()), losses(job)
        return f"ended with 4 after {len(self.losses)} steps", seconds

    def whole_hosts(self) -> tuple[str, float]:
        """the same, on nodes that have 8 CPUs, 2 GPUs (by name) and 2000 MB of memory for Slurm"""
        job, given = self.reference, self.reference.shown("TRES")
        sees(given.startswith("cpu=16,mem=4000M,node=2"), job, given)
        for path in self.cluster.folder.glob(f"run.sub-{job.id}-*.env"):
            text = path.read_text()
            sees("SLURM_CPUS_ON_NODE=8\n" in text and "SLURM_STEP_GPUS=0,1\n" in text, job, text)
        return "each launcher was given all CPUs, all memory and both GPUs of its node", 0.0

    def two_tasks_a_host(self) -> tuple[str, float]:
        """`sbatch --ntasks-per-node 2`, which is a mistake"""
        job = Job(self.cluster, "--ntasks-per-node=2", words=WHOLE)
        seconds = ended(job, "FAILED", "2:0")
        sees("4 tasks on 2 hosts" in job.said(), job)
        return "ended with 2, and the message names `srun --ntasks-per-node=1`", seconds

    def cancelled(self) -> tuple[str, float]:
        """`scancel`"""
        job = trains(Job(self.cluster, words=ENDLESS))
        run("scancel", job.id)
        seconds = ended(job, "CANCELLED", "0:15")
        return f"{aborted(job)}; Slurm calls the job CANCELLED", seconds

    def time_is_over(self) -> tuple[str, float]:
        """`--time 2 --signal=USR1@20`"""
        job = self.stopped = Job(self.cluster, "--time=2", "--signal=USR1@20", words=ENDLESS)
        begun = time.monotonic()
        trains(job)
        until("the signal comes", lambda: "SIGUSR1: the run stops after this step" in job.said(), 150)
        came = time.monotonic() - begun
        seconds = ended(job, "FAILED", "138:0")
        return (
            f"Slurm sent the signal {came:.0f} s after the submission; {aborted(job)}; the job ended with 138",
            seconds,
        )

    def goes_on(self) -> tuple[str, float]:
        """`scontrol requeue` of that job, and `scancel` later"""
        job, before = self.stopped, len(losses(self.stopped))
        run("scontrol", "requeue", job.id)
        run("scontrol", "update", f"JobId={job.id}", "TimeLimit=60")
        until("the job goes on", lambda: len(losses(job)) > before + 4, 600)
        run("scancel", job.id)
        seconds = ended(job, "CANCELLED", "0:15")
        both = list(zip(losses(job), self.losses, strict=False))
        sees(len(both) > before and all(now == then for now, then in both), job, str(both))
        return f"went on at step {before + 1}; the losses are those of the second row; {aborted(job)}", seconds

    def requeued(self) -> tuple[str, float]:
        """`scontrol requeue` of a job that runs"""
        job = trains(Job(self.cluster, words=WHOLE))
        run("scontrol", "requeue", job.id)
        return self.again(job)

    def node_set_down(self) -> tuple[str, float]:
        """`scontrol update NodeName=node02 State=DOWN`, and later `State=RESUME`"""
        job = trains(Job(self.cluster, words=WHOLE))
        run("scontrol", "update", "NodeName=node02", "State=DOWN", "Reason=trial")
        return self.again(job, lambda: run("scontrol", "update", "NodeName=node02", "State=RESUME"))

    def slurmd_killed(self) -> tuple[str, float]:
        """SIGKILL to the slurmd of node02"""
        job = trains(Job(self.cluster, words=ENDLESS))
        self.cluster.kill_slurmd()
        seconds = until("all processes have ended", lambda: not job.processes())
        seen = aborted(job)
        run("scancel", job.id)
        self.cluster.start_slurmd()
        return f"the processes on node02, which Slurm no longer reaches, ended too; {seen}", seconds

    def host_lost(self) -> tuple[str, float]:
        """The cable of node02 is cut and its processes are killed; later it starts again"""
        job = trains(Job(self.cluster, words=WHOLE))
        self.cluster.lose_second()
        return self.again(job, self.cluster.start_second)

    def again(self, job: Job, mend: Callable[[], object] = str) -> tuple[str, float]:
        """What a job came to that Slurm ends and starts again: the same as that of `two_hosts`. mend: between both."""
        seconds = until("all processes have ended", lambda: not job.processes())
        at = len(losses(job))
        mend()
        until("Slurm puts it back", lambda: job.shown("Restarts") == "1")
        ended(job, "FAILED", "4:0")
        changed = differences(story(job.run_folder()), self.whole)
        sees(not changed, job, changed)
        return f"ended at step {at}; started again by Slurm it ended with 4, as never stopped", seconds


def trains(job: Job) -> Job:
    """Wait until a job has trained some steps."""
    until("it trains", lambda: len(losses(job)) > 4 or job.shown("JobState") in ("FAILED", "COMPLETED"), 600)
    sees(job.shown("JobState") == "RUNNING", job)
    return job


def losses(job: Job) -> list[float]:
    """The loss of each step so far. Raises RuntimeError where a step is there twice, or missing."""
    path = job.run_folder() / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [one for line in lines if line.endswith("}") and (one := json.loads(line))["kind"] == "train"]
    sees(all(b["step"] == a["step"] + 1 for a, b in pairwise(records)), job, "a step is missing or there twice")
    return [one["loss"] for one in records]


def aborted(job: Job) -> str:
    """What a stopped run left: its log says aborted, each epoch once, and its checkpoint is of its last step."""
    from ssd.run.checkpoint import load_checkpoint

    log = [json.loads(line.removeprefix(":::MLLOG ")) for line in (job.run_folder() / "result_0.txt").open()]
    epochs = [one["metadata"]["epoch_num"] for one in log if one["key"] == "epoch_start"]
    sees(log[-1]["key"] == "run_stop" and log[-1]["metadata"]["status"] == "aborted", job, str(log[-1]))
    sees(epochs == list(range(1, len(epochs) + 1)), job, str(epochs))
    step, last = load_checkpoint(job.run_folder() / "checkpoint.pt").step, len(losses(job))
    sees(step == last, job, f"the checkpoint is of step {step}, and the last step is {last}")
    return f"log: aborted; checkpoint of the last step ({step})"


def ended(job: Job, state: str, code: str) -> float:
    """Wait for the end of a job and of all its processes; look at its state and exit code. Returns the seconds."""
    seconds = until("the job ends", lambda: job.shown("JobState") not in UNDER_WAY, 1200)
    seconds += until("no process is left", lambda: not job.processes(), 60)
    sees((job.shown("JobState"), job.shown("ExitCode")) == (state, code), job, f"not {state} {code}")
    sees("Traceback" not in job.said(), job)
    return seconds


def sees(held: object, job: Job, why: str = "") -> None:
    """Raise RuntimeError, with what the job said, where something does not hold."""
    if not held:
        found = {key: job.shown(key) for key in ("JobState", "ExitCode", "Reason", "Restarts")}
        raise RuntimeError(f"{why}\njob {job.id}: {found}, processes: {job.processes()}\n{job.said()}")


ACTS = {name: act for name, act in vars(Trial).items() if name != "again" and not name.startswith("_")}


def trials(trial: Trial, only: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Make the trials. Yields each row of the table, and what went wrong in it, or ""."""
    for name in only or ACTS:
        what = ACTS[name].__doc__
        try:
            seen, seconds = ACTS[name](trial)
            yield f"| {what} | {seen} | {f'{seconds:.1f} s' if seconds else ''} |", ""
        except Exception:
            yield f"| {what} | **not as promised** | |", f"{name}: {traceback.format_exc()}"
            run("scancel", "--user=root")
            until("all jobs have ended", lambda: not run("squeue", "-h"))


def write_page(rows: Sequence[str], version: str) -> None:
    """Write the page: these rows, of other trials those that it had, and which trials were never made."""
    before = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    known = {row.split(" | ")[0]: row for row in [*before, *rows]}
    lines = [
        known.get(f"| {act.__doc__}", f"| {act.__doc__} | **not seen to its end yet** | |") for act in ACTS.values()
    ]
    PAGE.write_text(HEAD.format(version=version) + "\n".join(lines) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Make the trials, print them as they come, and write the page and the variables. The exit code."""
    parser = argparse.ArgumentParser(prog="python tests/slurm/trial.py", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(ACTS), help="these trials alone; most need two_hosts before")
    asked = parser.parse_args(argv)
    if lacks := lacking():
        print(f"test-slurm: {lacks}", file=sys.stderr)
        return 7
    if INSIDE not in os.environ:
        enter()
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="ssd-slurm-") as name, ExitStack() as stack:
        folder = Path(name)
        os.environ.update(
            PYTHON=recording_python(folder), SSD_RUNS_DIR=f"{folder}/runs", OMP_NUM_THREADS="1", PYTHONPATH=""
        )
        trial = Trial(Cluster(folder))
        stack.callback(trial.cluster.close)
        version = run("srun", "--version").split()[-1]
        print(f"Slurm {version}", flush=True)
        for row, wrong in trials(trial, asked.only):
            print(row, wrong, sep="\n" * bool(wrong), flush=True)
            rows.append(row)
            write_page(rows, version)
            failed = failed or bool(wrong)
        if not asked.only:
            keep_variables(trial.cluster.folder, trial.reference.id, version)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
