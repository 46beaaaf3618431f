"""A slice of each row of `make chaos`: runs that are broken on purpose. And the judge itself: it sees what is lost."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Iterator
from errno import ENOSPC, EROFS
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import chaos
from disk import Call, Disk, checkpoints_of, mixture, recorded
from lab import KILL, KILL_HALF, Ended, Lab, Subject, differences, servers, unreadable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) is here, which makes the shim"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("chaos")
    with servers(folder) as made:
        yield Lab(folder, made)


@pytest.fixture(scope="module")
def subjects(lab: Lab) -> dict[str, Subject]:
    return {one.task: one for one in chaos.subjects(lab.folder)}


@pytest.fixture(scope="module")
def run(lab: Lab, subjects: dict[str, Subject]) -> tuple[Path, dict[str, Any], list[Call]]:
    """A run that nothing broke: its folder, what it came to, and its recorded calls."""
    trace = lab.folder / "trace"
    folder, whole, ended = lab.whole(subjects["train"], record=str(trace))
    calls = recorded(trace)
    assert ended.calls == len(calls)
    return folder, whole, calls


def number_of(calls: list[Call], op: str, name: str, which: int = -1) -> int:
    """The number of a call by what it does to which file: the last such call, or another."""
    return [at for at, call in enumerate(calls, 1) if call.op == op and Path(call.path).name == name][which]


def test_killed_between_the_two_names_of_a_checkpoint(lab: Lab, subjects: dict[str, Subject], run: Any) -> None:
    """The new one is on the disk, the old one has its second name, and the new one has none yet."""
    _, whole, calls = run
    assert lab.killed(subjects["train"], whole, number_of(calls, "rename", "checkpoint.pt.part"), KILL)[1] == ""


def test_killed_amid_a_line_of_the_result_log(lab: Lab, subjects: dict[str, Subject], run: Any) -> None:
    _, whole, calls = run
    assert lab.killed(subjects["train"], whole, number_of(calls, "write", "result_0.txt"), KILL_HALF)[1] == ""


def test_killed_again_while_the_logs_go_back(lab: Lab, subjects: dict[str, Subject], run: Any) -> None:
    """First after the evaluation, then before the first log is cut."""
    _, whole, calls = run
    first = number_of(calls, "create", "checkpoint.best.pt.part")
    assert lab.killed_twice(subjects["train"], whole, first, 8)[1] == ""


def test_killed_from_outside(lab: Lab, subjects: dict[str, Subject], run: Any) -> None:
    """Once before it can have begun to train, and once at some moment, or not at all where it was quicker."""
    _, whole, _ = run
    assert lab.killed_from_outside(subjects["train"], whole, [0.1, 3.0])[1] == ""


@pytest.mark.parametrize(("error", "name"), [(ENOSPC, "result_0.txt"), (EROFS, "metrics.jsonl")])
def test_an_error_of_the_disk(lab: Lab, subjects: dict[str, Subject], run: Any, error: int, name: str) -> None:
    _, whole, calls = run
    assert lab.failed(subjects["train"], whole, number_of(calls, "write", name, 12), error)[1] == ""


@pytest.mark.parametrize("task", ["index", "draw"])
def test_what_is_made_before_a_run_is_killed(lab: Lab, subjects: dict[str, Subject], task: str) -> None:
    """Every call of the index cache, and some of a drawn set."""
    trace = lab.folder / f"trace-{task}"
    _, whole, _ = lab.whole(subjects[task], record=str(trace))
    calls = recorded(trace)
    places = chaos.sample(calls, None if task == "index" else 6, random.Random(1))
    assert [lost for at in places if (lost := lab.killed(subjects[task], whole, at, KILL)[1])] == []


def test_power_loss(lab: Lab, run: Any) -> None:
    folder, _, calls = run
    row = chaos.power_loss(calls, folder, lab.folder / "states", 30, random.Random(1))
    assert (row.injected, row.lost) == (30, [])


def test_without_its_syncs_a_run_would_lose_something(lab: Lab, run: Any) -> None:
    """The judge sees it: the same calls without what syncs the files."""
    folder, _, calls = run
    kept = [one for one in calls if one.op != "sync" or one.path == str(folder)]
    row = chaos.power_loss(kept, folder, lab.folder / "unsynced", 30, random.Random(1))
    assert row.survived < 30, row


def test_without_the_sync_of_their_names_the_logs_of_a_checkpoint_would_be_lost(
    lab: Lab, run: Any, tmp_path: Path
) -> None:
    """Right after the first checkpoint has its name: the folder was synced before it was begun, and not yet again."""
    folder, _, calls = run
    known, named = checkpoints_of(calls), number_of(calls, "rename", "checkpoint.pt.part", 0)
    before = next(at for at in range(named, 0, -1) if calls[at - 1].op == "sync" and calls[at - 1].path == str(folder))
    for name, kept in (("synced", calls[:named]), ("not", [*calls[: before - 1], *calls[before:named]])):
        found = set()
        for seed in range(40):
            place = tmp_path / name / str(seed)
            Disk(kept, str(folder)).lay_out(place, random.Random(seed))
            found.add(mixture(place, known).partition(" cannot be read")[0].rpartition("/")[2])
        assert found == ({""} if name == "synced" else {"", "result_0.txt", "metrics.jsonl"})


def test_each_kind_of_damage_is_a_mixture(lab: Lab, run: Any, tmp_path: Path) -> None:
    folder, _, calls = run
    known = checkpoints_of(calls)
    assert len(known) == 3
    for name in ("checkpoint.pt", "checkpoint.previous.pt", "config.json", "summary.json", "result_0.txt"):
        state = tmp_path / name
        shutil.copytree(folder, state)
        assert mixture(state, known) == ""
        content = (state / name).read_bytes()
        (state / name).write_bytes(content[: len(content) // 2])
        assert name in mixture(state, known)


def test_what_differs_is_named(run: Any) -> None:
    _, whole, _ = run
    assert differences(whole, whole) == ""
    assert differences({**whole, "events": whole["events"][1:], "step": 3}, whole) == "events, step"


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (7, "error: /x: No space left on device; make room", ""),
        (4, "some warning", ""),
        (1, "ValueError: what", "ended with 1: ValueError"),
        (7, "error: one\nerror: two", "2 errors"),
        (7, "nothing to see", "0 errors"),
        (4, "Traceback (most recent call last):\n", "a traceback"),
        (3, "error: bad data", "ended with 3"),
    ],
)
def test_how_a_command_may_end(code: int, said: str, words: str) -> None:
    assert unreadable(Ended(code, 0.1, said, 9), 4).startswith(words)
    assert bool(words) == bool(unreadable(Ended(code, 0.1, said, 9), 4))


# The disk that is computed


def states(calls: list[Call], tmp_path: Path, count: int = 60) -> set[str]:
    """Every state that the disk was found in: the content of its files by name, as JSON."""
    found = set()
    for seed in range(count):
        place = tmp_path / str(seed)
        Disk(calls, "/r").lay_out(place, random.Random(seed))
        found.add(json.dumps({one.name: one.read_text() for one in sorted(place.iterdir())}))
    return found


def call(op: str, path: str, other: str = "", data: bytes = b"", place: int = 0) -> Call:
    return Call(op, path, other, place, data)


def test_what_was_synced_is_there(tmp_path: Path) -> None:
    calls = [call("create", "/r/a"), call("write", "/r/a", data=b"xy"), call("sync", "/r/a"), call("sync", "/r")]
    assert states(calls, tmp_path) == {'{"a": "xy"}'}


def test_what_was_not_synced_may_be_there_or_not(tmp_path: Path) -> None:
    """A name without content, half of a write, and no name at all."""
    calls = [call("create", "/r/a"), call("write", "/r/a", data=b"xy")]
    assert states(calls, tmp_path) == {"{}", '{"a": ""}', '{"a": "x"}', '{"a": "xy"}'}


def test_a_renaming_may_be_undone_until_the_folder_is_synced(tmp_path: Path) -> None:
    old = [call("create", "/r/a"), call("write", "/r/a", data=b"1"), call("sync", "/r/a"), call("sync", "/r")]
    new = [
        call("create", "/r/b"),
        call("write", "/r/b", data=b"2"),
        call("sync", "/r/b"),
        call("rename", "/r/b", "/r/a"),
    ]
    assert states(old + new, tmp_path / "before") == {'{"a": "1"}', '{"a": "1", "b": "2"}', '{"a": "2"}'}
    assert states([*old, *new, call("sync", "/r")], tmp_path / "after") == {'{"a": "2"}'}


def test_names_and_cuts(tmp_path: Path) -> None:
    calls = [call("create", "/r/a"), call("write", "/r/a", data=b"123"), call("link", "/r/a", "/r/b")]
    calls += [call("cut", "/r/a", place=1), call("sync", "/r/a"), call("unlink", "/r/a"), call("sync", "/r")]
    assert states(calls, tmp_path) == {'{"b": "1"}'}
