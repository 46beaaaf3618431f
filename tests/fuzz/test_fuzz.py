"""A slice of `make fuzz`. And the judge itself: it sees tracebacks, nonsense, hangs, stray files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fuzz
from subjects import SUBJECTS, Subject

from ssd.errors import DataError


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_damaged_input_is_refused_or_makes_sense(subject: Subject) -> None:
    count = max(2, round(15 * subject.share))
    report = fuzz.fuzz(subject, count, seed=1)
    assert report.faults == {}
    assert report.inputs == count
    assert report.lines > 0


def reader(read: Callable[[Path], Any], **more: Any) -> Subject:
    """Reads a file of one word. Its good content is read."""

    def make(folder: Path) -> None:
        (folder / "file").write_text("good")

    def read_unless_good(folder: Path) -> Any:
        return "" if (folder / "file").read_bytes() == b"good" else read(folder)

    return Subject("made", make, ("file",), read_unless_good, **more)


def refuses(folder: Path) -> None:
    raise DataError("no")


def divides(folder: Path) -> float:
    return 1 / 0


def writes_beside(folder: Path) -> None:
    (folder.parent / "escaped").write_text("x")


def writes(folder: Path) -> None:
    (folder / "left").write_text("x")


def hangs(folder: Path) -> None:
    time.sleep(60)


@pytest.mark.parametrize(
    ("subject", "fault"),
    [
        (reader(divides), "ZeroDivisionError"),
        (reader(writes_beside), "wrote ../escaped"),
        (reader(writes), "wrote left"),
        (reader(lambda folder: 5, wrong=lambda answer: answer and f"it is {answer}"), "accepted nonsense: it is 5"),
        (reader(hangs), "took more than"),
    ],
)
def test_a_fault_is_seen(subject: Subject, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    faults = fuzz.fuzz(subject, 3, seed=3).faults
    assert len(faults) == 1
    assert next(iter(faults)).startswith(fault)


def test_what_is_refused_is_no_fault() -> None:
    report = fuzz.fuzz(reader(refuses), 20, seed=3)
    assert (report.faults, report.inputs) == ({}, 20)
    assert report.refused > 15


def test_good_files_that_are_refused_are_an_error_of_the_subject() -> None:
    subject = Subject("made", lambda folder: (folder / "file").touch(), ("file",), refuses)
    with pytest.raises(RuntimeError, match="the good files of made: refused"):
        fuzz.fuzz(subject, 1, seed=1)


def test_the_same_seed_makes_the_same_inputs() -> None:
    seen: list[list[bytes]] = [[], []]
    for found in seen:
        fuzz.fuzz(reader(lambda folder, found=found: found.append((folder / "file").read_bytes())), 30, seed=5)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 15
