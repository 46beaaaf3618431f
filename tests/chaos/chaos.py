"""Breaks small runs at the calls by which they write files, and holds what is left to a run that was never broken.

    python tests/chaos/chaos.py --count 30         # a sample of each row (make chaos)
    python tests/chaos/chaos.py --full             # every call of every row (make chaos-full)

A process that has imported torch forks a child for each trial. shim.c is loaded into it: it ends the child at a chosen
call, or lets the call fail. Then the same command is given again, and must end in the same run. Power loss is computed:
the calls of a run are recorded with their data, and what a disk may have kept of them is made in a new folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from errno import errorcode
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from disk import Call, Disk, checkpoints_of, mixture, recorded
from lab import FAULTS, KILL, KILL_HALF, LONGER, NOT_CONVERGED, ROOT, TRAIN, Lab, Subject, contents, servers, story

PAGE = ROOT / "docs" / "chaos.md"
HEAD = """# Runs that are broken on purpose

The last output of {made}. **No accelerator was involved.**

A run of 8 steps on a CPU is broken at the calls by which it changes files, and its command is given again. What it
comes to is compared with a run that nothing broke: the tensors, the evaluations, every event and every record but for
times and rates, and the names of its files. Pictures and pages (detections.jpg, evaluation.json, trace.json,
report.html) are made after the run is over: a fault there may leave them out, or begun as a .part file. The same is
done while an index is cached, and while a data set is drawn.

- **SIGKILL** ends the process before a call, or after half of a write; or from outside, twice, after some random part
  of the time that a run of 48 steps takes.
- **ENOSPC, EDQUOT, EROFS** come at a call and at all later ones, **EIO** and **EMFILE** (where a file is opened) at
  one. The command must end with one sentence and exit code 7, or as ever where the run was over already. Then it is
  given again without the fault.
- **Power loss** is computed from the record of a run: what was not synced, a file's content or a folder's names, may
  have arrived or not. Each state must hold whole files, old or new, and logs that go back to the checkpoint.

The worst time is that of the command which recovers; for errors, that of the command which they end.

| fault | places | injected | survived | worst time | lost |
|---|---|---|---|---|---|
"""
AGAIN = 40
"""The first calls of a command that goes on: it takes back the logs, writes its config, and begins to train."""


@dataclass
class Row:
    """A row of the table. calls: how many places there are, 0 where any moment is one.

    lost: what each trial lost that lost something, in words.
    """

    fault: str
    calls: int
    injected: int = 0
    survived: int = 0
    worst: float = 0.0
    lost: list[str] = field(default_factory=list)

    def add(self, seconds: float, lost: str) -> None:
        """Count a trial. seconds: to its end or recovery."""
        self.injected += 1
        self.survived += not lost
        self.worst = max(self.worst, seconds)
        if lost:
            self.lost.append(lost)

    def cells(self) -> str:
        """The row as Markdown."""
        lost, places = "; ".join(self.lost[:3]) or "nothing", f"{self.calls:,}" if self.calls else "any moment"
        return f"| {self.fault} | {places} | {self.injected:,} | {self.survived:,} | {self.worst:.1f} s | {lost} |"


def sample(calls: Sequence[Call], count: int | None, rng: random.Random) -> list[int]:
    """The numbers of `count` calls, or of all; the first and the last are always among them.

    Most calls of a run write the tensors of a checkpoint. So only a quarter of a sample is of these.
    """
    every = range(1, len(calls) + 1)
    if count is None or count >= len(calls):
        return list(every)
    tensors = {at for at in every if calls[at - 1].op == "write" and "checkpoint" in Path(calls[at - 1].path).name}
    others = [at for at in every if at not in tensors]
    chosen = {others[0], others[-1]}
    if tensors:
        chosen.update(rng.sample(sorted(tensors), min(len(tensors), count // 4)))
    left = [at for at in others if at not in chosen]
    chosen.update(rng.sample(left, min(len(left), max(0, count - len(chosen)))))
    return sorted(chosen)


def subjects(folder: Path) -> list[Subject]:
    """A run, an index that is cached, and a drawn data set."""
    annotations = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 9, "height": 9} for n in range(40)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0, "area": 25}
            for n in range(40)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    source = folder / "instances_train2017.json"
    source.write_text(json.dumps(annotations))
    os.utime(source, (1e9, 1e9))
    return [
        Subject("run", "train", TRAIN, NOT_CONVERGED, story),
        Subject("index cache", "index", str(source), 0, lambda one: {"index": _indexed(source, one)}),
        Subject("drawn data set", "draw", str(folder / "cache"), 0, _drawn),
    ]


def _indexed(source: Path, cache: Path) -> Any:
    from ssd.data.index_cache import load_index

    index = load_index(source, cache)
    return [index.sha256, index.bboxes.tolist(), list(index.file_names)]


def _drawn(folder: Path) -> dict[str, Any]:
    return {name: digest for name, digest in contents(folder).items() if not name.startswith(".")}


def rows(lab: Lab, count: int | None, states: int, seed: int, workers: int, only: str = "") -> Iterator[Row]:
    """The rows of the table, each when it is done. count: trials of a row; None: all. only: rows with these words."""
    rng = random.Random(seed)

    def made(fault: str, places: Sequence[Any], calls: int, trial: Callable[[Any], tuple[float, str]]) -> Iterator[Row]:
        if only not in fault:
            return
        row = Row(fault, calls)
        with ThreadPoolExecutor(workers) as pool:
            for seconds, lost in pool.map(trial, places):
                row.add(seconds, lost)
        yield row

    if only in (outside := "SIGKILL from outside: run of 48 steps"):
        longer = Subject("run of 48 steps", "train", LONGER, NOT_CONVERGED, story)
        _, whole, ended = lab.whole(longer)
        moments = [
            [rng.uniform(0.05, ended.seconds) for _ in range(2)] for _ in range(100 if count is None else count // 2)
        ]
        yield from made(outside, moments, 0, lambda two, whole=whole: lab.killed_from_outside(longer, whole, two))
    for subject in subjects(lab.folder):
        trace = lab.folder / f"trace-{subject.task}"
        folder, whole, _ = lab.whole(subject, record=str(trace))
        calls = recorded(trace)
        yield from made(
            f"SIGKILL before a call: {subject.name}",
            sample(calls, count, rng),
            len(calls),
            lambda at, subject=subject, whole=whole: lab.killed(subject, whole, at, KILL),
        )
        if subject.task != "train":
            continue
        yield from made(
            "SIGKILL amid a call: run",
            sample(calls, count and count // 2, rng),
            len(calls),
            lambda at, subject=subject, whole=whole: lab.killed(subject, whole, at, KILL_HALF),
        )
        resumed = range(1, AGAIN + 1)
        first = rng.randint(len(calls) * 3 // 4, len(calls))
        yield from made(
            f"SIGKILL before call {first}, and again as the next command begins: run",
            list(resumed) if count is None else rng.sample(resumed, min(AGAIN, max(2, count // 2))),
            AGAIN,
            lambda at, subject=subject, whole=whole, first=first: lab.killed_twice(subject, whole, first, at),
        )
        for error in FAULTS:
            yield from made(
                f"{errorcode[error]}: run",
                sample(calls, count and max(2, count // 3), rng),
                len(calls),
                lambda at, error=error, subject=subject, whole=whole: lab.failed(subject, whole, at, error),
            )
        if only in "power loss: run":
            yield power_loss(calls, folder, lab.folder / "states", states, rng)


def power_loss(calls: Sequence[Call], folder: Path, target: Path, states: int, rng: random.Random) -> Row:
    """States of the disk after power was lost, half of them after a change of names. Each is looked at by `mixture`."""
    row = Row("power loss: run", len(calls))
    known = checkpoints_of(calls)
    named = [at for at, call in enumerate(calls, 1) if call.op not in ("write", "sync", "open", "cut", "none")]
    for number in range(states):
        begun = time.monotonic()
        at = rng.choice(named) if number % 2 else rng.randint(1, len(calls))
        place = target / str(number)
        Disk(calls[:at], str(folder)).lay_out(place, rng)
        lost = mixture(place, known)
        row.add(time.monotonic() - begun, lost and f"after call {at}: {lost}")
        shutil.rmtree(place)
    return row


def page(found: Sequence[Row], count: int | None, seed: int, minutes: float) -> str:
    """What was found, as a page of docs. count: trials of a row, None where every call was broken."""
    how = "--full" if count is None else f"--count {count}"
    made = f"`python tests/chaos/chaos.py {how} --seed {seed}` ({minutes:.0f} minutes)"
    return HEAD.format(made=made) + "\n".join(row.cells() for row in found) + "\n"


def main(argv: Sequence[str]) -> int:
    """Make the rows, print them as they come, and write the page where all were made. The exit code."""
    parser = argparse.ArgumentParser(prog="python tests/chaos/chaos.py", description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="trials of a row")
    parser.add_argument("--full", action="store_true", help="every call")
    parser.add_argument("--states", type=int, default=200, help="states of the disk after power loss")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--workers", type=int, default=2, help="trials at once")
    parser.add_argument("--only", default="", help="rows with these words alone; no page is written")
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args(argv)
    begun = time.monotonic()
    print(f"seed {asked.seed}")
    found = []
    with tempfile.TemporaryDirectory(prefix="ssd-chaos-") as name, servers(Path(name), asked.workers) as made:
        count = None if asked.full else asked.count
        for row in rows(Lab(Path(name), made), count, asked.states, asked.seed, asked.workers, asked.only):
            share = f" ({row.injected / row.calls:.0%} of the places)" if row.calls else ""
            print(f"{row.cells()}{share}", flush=True)
            found.append(row)
    if not asked.only:
        asked.page.write_text(page(found, count, asked.seed, (time.monotonic() - begun) / 60), encoding="utf-8")
    return 1 if any(row.lost for row in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
