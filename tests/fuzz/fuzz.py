"""Damaged input for every reader: 100,000 inputs, each refused in one sentence or read as something that makes sense.

    python tests/fuzz/fuzz.py [--count 100000] [--seed N] [--only TEXT]
    make fuzz [SEED=N] [ONLY=TEXT]

Each reader (subjects.py) gets good files of which one is damaged (damage.py). A fault is an exception that is not one
of this project's errors, an answer that makes no sense, more than 10 seconds, more than 1 GiB, or a file that was
written where none belongs. The inputs are guided by coverage: one that made the code run a line for the first time is
damaged further. The seed that is printed repeats a run. Exit code 0 where no fault was found, else 1. The input of
each fault is kept in the folder that the last line names.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "base"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from damage import damaged
from rich.console import Console
from rich.table import Table
from subjects import SUBJECTS, Subject

from ssd.errors import SsdError

BASE = Path(__file__).resolve().parents[2] / "base"
SECONDS = 10
MEMORY = 1 << 30
CORPUS = 200
"""Inputs of one reader that reached new lines and are damaged further."""


class TooLongError(BaseException):
    """A reader needed more than SECONDS. It is no Exception, so that no reader catches it."""


@dataclass
class Report:
    """What one reader did with its inputs. faults: by a short text, the first input of each, as (file, content)."""

    inputs: int = 0
    refused: int = 0
    lines: int = 0
    slowest: float = 0.0
    memory: int = 0
    faults: dict[str, tuple[str, bytes]] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all readers or those asked for, print the table, keep the inputs of faults. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--count", type=int, default=100_000, help="inputs of all readers together")
    flags.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    flags.add_argument("--only", default="", help="readers whose name holds this text")
    asked = flags.parse_args(argv)
    chosen = [subject for subject in SUBJECTS if asked.only in subject.name]
    whole = sum(subject.share for subject in chosen)
    table = Table(title=f"{asked.count:,} damaged inputs, seed {asked.seed}")
    for heading in ("reader", "inputs", "refused", "read", "lines reached", "slowest, s", "memory, MB", "faults"):
        table.add_column(heading, justify="left" if heading == "reader" else "right")
    kept = Path(tempfile.mkdtemp(prefix="ssd-fuzz-"))
    failed = 0
    for subject in chosen:
        report = fuzz(subject, max(1, round(asked.count * subject.share / whole)), asked.seed)
        numbers = (report.inputs, report.refused, report.inputs - report.refused, report.lines)
        table.add_row(
            *(subject.name, *(f"{number:,}" for number in numbers)),
            *(f"{report.slowest:.2f}", f"{report.memory >> 20:,}", str(len(report.faults))),
        )
        for number, (said, (file, content)) in enumerate(report.faults.items()):
            name = f"{subject.name.replace(' ', '_')}_{number}_{Path(file).name}"
            (kept / name).write_bytes(content)
            print(f"FAULT {subject.name}, {file}: {said}\n  input: {kept / name}", flush=True)
        failed += len(report.faults)
    Console(width=120).print(table)
    print(f"faults: {failed}" + (f"; their inputs are in {kept}" if failed else ""))
    if not failed:
        kept.rmdir()
    return int(failed > 0)


def fuzz(subject: Subject, count: int, seed: int) -> Report:
    """Give a reader `count` damaged inputs, in a folder of its own."""
    rng = random.Random(f"{seed} {subject.name}")
    report = Report()
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="ssd-fuzz-") as scratch, _quiet():
        folder = Path(scratch, "outside", "inside")
        folder.mkdir(parents=True)
        os.chdir(folder)
        try:
            subject.make(folder)
            logging.disable(logging.CRITICAL)
            _run(subject, folder, count, rng, report)
        finally:
            os.chdir(before)
            logging.disable(logging.NOTSET)
    return report


def _run(subject: Subject, folder: Path, count: int, rng: random.Random, report: Report) -> None:
    good = {
        path: path.read_bytes() for pattern in subject.damage for path in sorted(folder.glob(pattern)) if path.is_file()
    }
    whole = _files(folder)
    corpus = list(good.items())
    reached: set[tuple[str, int]] = set()
    outcome, _ = _judge(subject, folder, reached)  # the good files: what they reach is known, and caches are warm
    if outcome != ("read" if subject.reads_good else "refused"):
        raise RuntimeError(f"the good files of {subject.name}: {outcome}")
    for _ in range(count):
        path, content = rng.choice(corpus)
        changed = damaged(content, rng)
        path.write_bytes(changed)
        new: set[tuple[str, int]] = set()
        begun = time.monotonic()
        outcome, used = _judge(subject, folder, new)
        report.inputs += 1
        report.refused += outcome == "refused"
        report.slowest = max(report.slowest, time.monotonic() - begun)
        report.memory = max(report.memory, used)
        if used > MEMORY:
            outcome = f"{used >> 20} MB of memory"
        if not new <= reached and len(corpus) < CORPUS:
            corpus.append((path, changed))
        reached |= new
        path.write_bytes(good[path])
        if extra := {name for name in _files(folder) - whole if not name.startswith(subject.writes or ("//",))}:
            outcome = f"wrote {', '.join(sorted(extra))}"
            for name in extra:
                (folder / name).unlink(missing_ok=True)
        if outcome not in ("refused", "read"):
            report.faults.setdefault(outcome, (str(path.relative_to(folder)), changed))
    report.lines = len(reached)


def _judge(subject: Subject, folder: Path, reached: set[tuple[str, int]]) -> tuple[str, int]:
    """What became of one input: "refused", "read", or the fault in words. And the bytes of memory that it took."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(str(BASE)):
            return None
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    peak = _peak()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    sys.settrace(trace)
    try:
        answer = subject.read(folder)
    except SsdError as error:
        said = str(error)
        return ("refused" if 0 < len(said) < 5000 else f"a message of {len(said)} characters"), _peak() - peak
    except TooLongError:
        return f"took more than {SECONDS} s", _peak() - peak
    except BaseException as error:  # whatever it is: it is the finding
        sys.settrace(None)
        last = [entry for entry in traceback.extract_tb(error.__traceback__) if entry.filename.startswith(str(BASE))]
        where = f"{Path(last[-1].filename).relative_to(BASE)}:{last[-1].lineno}" if last else "outside of base"
        return f"{type(error).__name__} at {where}: {str(error)[:150]}", _peak() - peak
    finally:
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        wrong = subject.wrong(answer)
    except ValueError as error:
        wrong = str(error)
    return (f"accepted nonsense: {wrong}" if wrong else "read"), _peak() - peak


def _peak() -> int:
    """The most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _files(folder: Path) -> set[str]:
    """The files in the folder and beside it, as paths from it."""
    beside = (*folder.parent.iterdir(), *folder.parent.parent.iterdir())
    outside = {os.path.relpath(path, folder) for path in beside if path.is_file()}
    return outside | {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that readers print is shown; a signal ends what takes too long."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    was = signal.signal(signal.SIGALRM, too_long)
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    signal.signal(signal.SIGALRM, was)


if __name__ == "__main__":
    sys.exit(main())
