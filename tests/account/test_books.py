"""The account: parts that add up, the first epoch's excess, sampled shares, and who waited for whom."""

from __future__ import annotations

import pytest

from ssd.account.books import first_epoch_excess, make_account
from ssd.account.facts import Epoch

TOTALS = {"imports": 3.0, "data_wait": 10.0, "step": 100.0, "end": 1.0}


def epoch(number: int, wait: float, work: float, steps: int = 10) -> Epoch:
    return Epoch(number, wait + work, steps, wait)


def test_the_first_epoch_s_excess_is_taken_out_of_its_parts() -> None:
    epochs = [epoch(1, 4.0, 16.0), epoch(2, 1.0, 10.0), epoch(3, 2.0, 12.0), epoch(4, 1.0, 11.0)]
    assert first_epoch_excess(epochs) == {"data_wait": 3.0, "step": pytest.approx(5.0)}


def test_a_first_epoch_of_fewer_steps_is_compared_by_the_step() -> None:
    """That of a run that was resumed in the middle of an epoch."""
    epochs = [epoch(3, 1.0, 10.0, steps=5), epoch(4, 1.0, 10.0), epoch(5, 1.0, 10.0)]
    assert first_epoch_excess(epochs) == {"data_wait": 0.5, "step": 5.0}


def test_one_epoch_has_no_excess() -> None:
    assert first_epoch_excess([epoch(1, 4.0, 16.0)]) == {}
    assert first_epoch_excess([Epoch(1, 20.0), Epoch(2, 10.0)]) == {}, "a log that knows no data wait"


def test_the_parts_add_up_with_the_excess_among_them(records) -> None:
    account = make_account(TOTALS, 114.0, records())
    assert sum(account["parts"].values()) == pytest.approx(114.0, rel=1e-6)
    assert account["parts"]["first_epoch_excess"] == pytest.approx(sum(account["first_epoch"].values()), abs=1e-5)
    assert account["parts"]["first_epoch_excess"] > 0
    assert next(iter(account["parts"])) == "imports"


def test_shares_of_the_sampled_steps(records) -> None:
    sampled = make_account(TOTALS, 114.0, records())["sampled"]
    assert sampled["steps"] == 12
    assert sampled["seconds_per_step"] == {"forward": 0.5, "backward": 0.9}
    assert sampled["share"] == {"forward": pytest.approx(5 / 14, abs=1e-4), "backward": pytest.approx(9 / 14, abs=1e-4)}


def test_who_waited_for_whom(records) -> None:
    def slow(record, number):
        record["ranks"][1]["data_wait"] = 11.0

    ranks = make_account(TOTALS, 114.0, records("epoch", slow))["ranks"]
    assert ranks["slowest"] == 1
    assert ranks["seconds"] == [pytest.approx(12 * (1 + 20)), pytest.approx(12 * (11 + 20))]
    assert ranks["waited_s"] == ranks["spread_s"] == pytest.approx(120.0)


def test_one_process_has_no_ranks_to_compare(records) -> None:
    def alone(record, number):
        del record["ranks"][1]

    assert make_account(TOTALS, 114.0, records("epoch", alone))["ranks"] == {}


def test_a_run_without_records_is_its_parts() -> None:
    account = make_account(TOTALS, 114.0, [])
    assert account["parts"] == TOTALS
    assert (account["sampled"], account["ranks"], account["first_epoch"]) == ({}, {}, {})


def test_only_epochs_with_a_sampled_step_are_sampled() -> None:
    told = {"steps": [4], "seconds": {"forward": 1.0}}
    kinds = [{"kind": "train", "step": 4, "loss": 1.0, "sampled": told}, {"kind": "epoch", "epoch": 1, "step": 4}]
    assert make_account(TOTALS, 114.0, kinds)["sampled"] == {}
    for nothing in ({"steps": [], "seconds": {"forward": 1.0}}, {"steps": [4], "seconds": {"forward": 0.0}}):
        epoch = {"kind": "epoch", "epoch": 1, "step": 4, "sampled": nothing}
        assert make_account(TOTALS, 114.0, [epoch])["sampled"] == {}
    timed = {"kind": "epoch", "epoch": 1, "step": 4, "sampled": {**told, "clock": "device"}}
    assert make_account(TOTALS, 114.0, [timed, timed])["sampled"] == {
        "steps": 2,
        "clock": "device",
        "seconds_per_step": {"forward": 1.0},
        "share": {"forward": 1.0},
    }
