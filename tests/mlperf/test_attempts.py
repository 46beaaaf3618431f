"""The state of a campaign: what was saved comes back, and what no campaign writes is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.errors import DataError
from ssd.mlperf.attempts import Attempt, State, load_state, save_state


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    attempts = [Attempt("run_0", 7, "failed", 3, "no data"), Attempt("run_1", 8, "counts", 0), Attempt("run_2", 9)]
    state = State({"name": "cpu", "epochs": 3}, attempts, 12.5)
    save_state(tmp_path, state)
    assert load_state(tmp_path) == state
    assert [one.folder for one in state.counted] == ["run_1"]
    assert [path.name for path in tmp_path.iterdir()] == ["campaign.json"]


def test_a_folder_of_no_campaign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refusal:
        load_state(tmp_path)
    assert str(refusal.value) == f"{tmp_path}/campaign.json: not a campaign's state: No such file or directory"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"config": {}, "attempts": [{"folder": "../x", "seed": 1}]}', "'../x' is no name of a run's folder"),
        ('{"config": {}, "attempts": [{"folder": "run_0", "seed": "1"}]}', "attempts: 0: seed: "),
        ('{"config": 5, "attempts": []}', "config: "),
        ("[" * 100_000, "not a campaign's state"),
        ("{}", "config: "),
    ],
)
def test_a_state_that_no_campaign_writes_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "campaign.json").write_text(content)
    with pytest.raises(DataError) as refusal:
        load_state(tmp_path)
    assert said in str(refusal.value)
    assert len(str(refusal.value)) < 1000
