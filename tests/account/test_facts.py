"""Records read from metrics.jsonl: what is whole is kept, and what they say has one form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssd.account.facts import facts_of, last_process, read_metrics


def test_lines_that_are_not_whole_are_left_out(tmp_path: Path) -> None:
    good = [
        {"kind": "train", "time": 1.0, "step": 1, "epoch": 1, "loss": 2.0},
        {"kind": "another", "time": 2.0},
    ]
    bad = ["", "[1]", "7", '{"kind": 3, "time": 1}', '{"kind": "train", "time": 1}', '{"kind": "train", "time": NaN}']
    bad += ['{"kind": "train", "time": 1, "step": 1, "epoch": 1, "loss": "two"}', '{"kind": "train", "ti']
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*map(json.dumps, good), *bad]))
    assert read_metrics(path) == good
    assert read_metrics(tmp_path / "absent") == []


def test_the_last_process_begins_at_the_last_resume() -> None:
    records = [{"kind": "start"}, {"kind": "resumed", "step": 1}, {"kind": "train"}, {"kind": "resumed", "step": 2}]
    assert last_process(records) == records[3:]
    assert last_process(records[:1]) == records[:1]


def test_epochs_know_their_steps(records) -> None:
    facts = facts_of(records())
    assert [one.steps for one in facts.epochs] == [40] * 12
    assert facts.epochs[1].data_wait == 1.0
    assert facts.epochs[1].seconds == 60.0 * 1.02
    assert facts.last_step == 480
    assert [one.epoch for one in facts.evaluations] == [4, 8, 12]
    assert facts.checkpoints[0] == (pytest.approx(0.85), 160_000_000)


def test_an_epoch_that_was_resumed_in_its_middle_has_fewer(records) -> None:
    found = [{"kind": "resumed", "step": 10, "time": 0.0}, *records()]
    assert facts_of(found).epochs[0].steps == 30


def test_records_of_an_older_version_have_no_account() -> None:
    old = [{"kind": "epoch", "epoch": 1, "step": 4, "seconds": {}}, {"kind": "evaluation", "epoch": 1, "AP": 0.1}]
    facts = facts_of(old)
    assert (facts.epochs, facts.evaluations) == ([], [])
