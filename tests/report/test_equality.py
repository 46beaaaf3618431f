"""Two runs held to each other by their records: what parts first is named, with its size and the tolerance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssd.errors import DataError
from ssd.report.equality import BATCHES, Kept, Verdict, differing_keys, hold, number_parting, read_config, read_kept


def steps(first: int, epoch: int, losses: list, ids: str = "", draws: str = "", **more: Any) -> dict:
    """A record of steps; `ids` and `draws` give a letter for each of them."""
    columns = {"ids": list(ids) or ["a"] * len(losses), "draws": list(draws) or ["a"] * len(losses)}
    return {"kind": "steps", "time": 1.0, "epoch": epoch, "first_step": first, "loss": losses, **columns, **more}


def train(step: int, epoch: int, loss: float) -> dict:
    return {"kind": "train", "time": 1.0, "step": step, "epoch": epoch, "loss": loss, "images": 2}


def kept(folder: Path, *records: dict) -> Kept:
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    return read_kept(folder)


def first(one: Kept, other: Kept, tolerance: float = 0.0) -> tuple:
    parting = hold(one, other, tolerance)[1][0]
    return parting.step, parting.epoch, parting.what, parting.name


BASE = steps(1, 1, [5.0, 4.0, 3.0], norms={"2": {"w": 1.0, "v": 2.0}})
EVALUATION = {"kind": "evaluation", "time": 1.0, "epoch": 1, "step": 3, "AP": 0.2, "AP50": 0.4}


def test_the_same_records_are_equal(tmp_path: Path) -> None:
    timed = {**EVALUATION, "seconds": {"eval_metric": 3.0}, "ranks": [{"eval_metric": 3.0}]}
    one, other = kept(tmp_path, BASE, EVALUATION), kept(tmp_path, {**BASE, "time": 2.0}, timed)
    assert hold(one, other, 0.0) == ({"ids": 3, "draws": 3, "loss": 3, "norm": 1, "score": 1}, [])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([steps(1, 1, [5.0, 4.5, 9.0])], (2, 1, "loss", "")),
        ([steps(1, 1, [5.0, 4.0, 9.0], ids="aba")], (2, 1, "ids", "")),
        ([steps(1, 1, [5.0, 4.0, 9.0], draws="aab")], (3, 1, "draws", "")),
        ([steps(1, 1, [9.0, 4.0, 3.0], ids="bbb", draws="bbb")], (1, 1, "ids", "")),
        ([steps(1, 1, [5.0, 4.0, 9.0], norms={"2": {"w": 1.0, "v": 2.5}})], (2, 1, "norm", "v")),
        ([BASE, {**EVALUATION, "AP50": 0.41}], (3, 1, "score", "AP50")),
        ([BASE, steps(4, 2, [2.0])], (3, None, "end", "")),
        ([steps(1, 1, [5.0, None, 3.0])], (2, 1, "loss", "")),
    ],
)
def test_the_first_thing_that_differs_is_named(tmp_path: Path, other: list[dict], expected: tuple) -> None:
    assert first(kept(tmp_path, BASE, EVALUATION), kept(tmp_path, *other)) == expected


def test_an_older_commit_s_intervals_are_compared(tmp_path: Path) -> None:
    """The record of steps is new: losses of intervals stand in for it, and a new run has both."""
    old = kept(tmp_path, train(2, 1, 4.5), train(4, 2, 3.0))
    new = kept(tmp_path, train(2, 1, 4.5), train(4, 2, 3.5), steps(1, 1, [5.0, 4.0, 4.0, 3.0]))
    compared, partings = hold(old, new, 0.0)
    assert compared == {"interval": 2}
    assert [(one.step, one.what, one.values) for one in partings] == [(4, "interval", (3.0, 3.5))]


def test_the_tolerance_is_relative_to_the_larger(tmp_path: Path) -> None:
    one, other = kept(tmp_path, steps(1, 1, [100.0])), kept(tmp_path, steps(1, 1, [99.0]))
    assert hold(one, other, 0.01)[1] == []
    (parting,) = hold(one, other, 0.0099)[1]
    assert (parting.difference, parting.relative) == (1.0, 0.01)


def test_a_tolerance_is_not_for_batches(tmp_path: Path) -> None:
    one, other = kept(tmp_path, steps(1, 1, [1.0], ids="a")), kept(tmp_path, steps(1, 1, [2.0], ids="b"))
    assert [part.what for part in hold(one, other, 1.0)[1]] == ["ids"]
    assert [part.what for part in hold(one, other, 0.0, only=BATCHES)[1]] == ["ids"]


def test_numbers_that_are_none() -> None:
    assert number_parting(1, 1, "loss", "", (None, None), 0.0) == []
    (parting,) = number_parting(1, None, "loss", "", (None, 1.0), 1.0)
    assert parting.difference is None
    assert str(parting) == "step 1: the loss differs: None and 1.0"
    assert [part.values for part in number_parting(1, 1, "loss", "", (1.0, None), 1.0)] == [(1.0, None)]
    assert number_parting(1, 1, "loss", "", (0.0, -0.0), 0.0) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "steps"}', '{"kind": "train", "step": 1}'])
def test_what_is_no_record_is_named_by_file_and_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"kind": "start"}}\n{text}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2"):
        read_kept(tmp_path)


def test_a_folder_of_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.jsonl.*name the folder of a run"):
        read_kept(tmp_path)


def test_keys_that_differ(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": {"value": 1, "from": "default"}, "b": {"value": 2, "from": "x"}}')
    config = read_config(tmp_path)
    assert config == {"a": 1, "b": 2}
    assert differing_keys(config, {"a": 1, "b": 3, "c": 4}, frozenset()) == {"b": (2, 3), "c": (None, 4)}
    assert differing_keys(config, {"a": 1, "b": 3}, frozenset({"b"})) == {}
    assert read_config(tmp_path / "nowhere") == {}
    assert differing_keys(config, {}, frozenset()) == differing_keys({}, config, frozenset()) == {}


def test_the_verdict_says_where_how_much_and_how_many(tmp_path: Path) -> None:
    one, other = kept(tmp_path, BASE, EVALUATION), kept(tmp_path, steps(1, 1, [5.0, 4.5, 9.0]), EVALUATION)
    verdict = Verdict(("run a", "run b"), 0.0, *hold(one, other, 0.0), ["A note."], {"seed": (1, 2)})
    text = "\n".join(verdict.lines())
    assert "A and B part at step 2 (epoch 1): the loss differs: 4.0 and 4.5, 0.5 apart, which is 0.111 of the" in text
    assert "held to each other to the bit" in text
    assert "Of the losses of 3 steps, 2 differ, the worst at step 3" in text
    assert "Their configs differ in seed: 1 and 2." in text
    assert text.endswith("A note.")
    content = json.loads(verdict.as_json())
    assert (content["equal"], content["first"]["step"], content["different"]) == (False, 2, {"loss": 2})
    same = Verdict(("run a", "run b"), 1e-3, *hold(one, one, 1e-3), [], {})
    assert "A and B are the same within 0.001 of the larger number: the ids of 3 steps' images; " in [*same.lines()][2]
