"""The account of anybody's result log: parts that add up to run_stop - run_start, and what stands out in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ssd.account.facts import Epoch, Evaluation, Facts
from ssd.account.log_events import MEANINGS, LogAccount, log_account, log_anomalies, log_facts


@dataclass(frozen=True)
class Said:
    key: str
    time_ms: float
    metadata: dict[str, Any] = field(default_factory=dict)


def log(epochs: Sequence[float], *, evaluation: float = 2.0, every: int = 5, beside: bool = False) -> list[Said]:
    """A log of epochs of these seconds, with an evaluation after each `every`-th; `beside`: while training goes on."""
    now = 100.0
    told = [Said("init_start", 40_000), Said("init_start", 41_000), Said("init_stop", 99_000)]
    told.append(Said("run_start", now * 1000))
    now += 1.5
    for number, seconds in enumerate(epochs, 1):
        about = {"epoch_num": number}
        told.append(Said("epoch_start", now * 1000, about))
        told.append(Said("epoch_stop", (now + seconds) * 1000, about))
        now += seconds
        if number % every == 0:
            told.append(Said("eval_start", now * 1000, about))
            told.append(Said("eval_stop", (now + evaluation) * 1000, about))
            now += 0 if beside else evaluation
    return [*told, Said("run_stop", (now + 0.25) * 1000, {"status": "success"})]


STEADY = [10.0, 9.5, 9.6, 9.5, 9.4, 9.5, 9.6, 9.5, 9.5, 9.4]


def names(told: list[Said]) -> list[str]:
    return [one.name for one in log_anomalies(told)]


def test_the_parts_add_up() -> None:
    account = log_account(log(STEADY))
    assert account is not None
    assert account.epoch_s == pytest.approx(9.5)
    parts = dict(account.parts)
    assert parts.pop("set_up") == pytest.approx(60.0), "from the first of the ranks' init_start"
    assert parts == {
        "start": pytest.approx(1.5),
        "first_epoch_excess": pytest.approx(0.5),
        "epochs": pytest.approx(sum(STEADY) - 0.5),
        "evaluation": pytest.approx(4.0),
        "rest": pytest.approx(0.25),
    }
    assert sum(parts.values()) == pytest.approx(account.wall_s)
    assert {*parts, "set_up"} == MEANINGS.keys()


def test_an_evaluation_beside_the_training_is_counted_once() -> None:
    account = log_account(log([*STEADY, 9.5, 9.5], beside=True))
    assert account is not None
    assert account.parts["evaluation"] == pytest.approx(0.0)
    assert sum(account.parts.values()) == pytest.approx(account.wall_s + 60.0)


def test_a_log_without_epochs_has_its_training_in_the_rest() -> None:
    told = [one for one in log(STEADY) if not one.key.startswith("epoch")]
    account = log_account(told)
    assert account is not None
    assert account.epoch_s is None
    assert account.parts["epochs"] == account.parts["first_epoch_excess"] == 0
    assert account.parts["start"] + account.parts["rest"] + account.parts["evaluation"] == pytest.approx(account.wall_s)


@pytest.mark.parametrize("key", ["run_start", "run_stop"])
def test_a_log_that_is_not_whole_has_no_account(key: str) -> None:
    assert log_account([one for one in log(STEADY) if one.key != key]) is None


def test_a_first_epoch_stretched_by_17_seconds_is_named() -> None:
    assert names(log(STEADY)) == []
    found = log_anomalies(log([STEADY[0] + 17, *STEADY[1:]]))
    assert [one.name for one in found] == ["first epoch long"]
    assert "Epoch 1 took 27.0 s" in found[0].words


@pytest.mark.parametrize("place", [4, 7])
def test_a_stalled_epoch_is_named(place: int) -> None:
    epochs = [*STEADY[:place], 30.0, *STEADY[place + 1 :]]
    assert names(log(epochs)) == ["epoch stalled"]


def resumed(told: list[Said], behind: int, pause: float) -> list[Said]:
    """A log that stopped after its record number `behind`, and was resumed `pause` seconds later."""
    stopped = told[behind].time_ms
    later = [Said(one.key, one.time_ms + pause * 1000, one.metadata) for one in told[behind + 1 :]]
    return [*told[: behind + 1], Said("ssd_resumed", stopped + pause * 1000), *later]


@pytest.mark.parametrize("key", ["epoch_start", "epoch_stop", "eval_start"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_the_gap_of_a_resume_is_named_as_one_and_belongs_to_no_epoch(key: str, number: int) -> None:
    told = log(STEADY, every=1)
    behind = next(n for n, one in enumerate(told) if (one.key, one.metadata) == (key, {"epoch_num": number}))
    broken = resumed(told, behind, 60.0)
    assert names(broken) == ["resumed"]
    assert "The run was resumed: 60.0 s passed" in log_anomalies(broken)[0].words
    whole, account = log_account(told), log_account(broken)
    assert whole is not None
    assert account is not None
    assert account.wall_s == pytest.approx(whole.wall_s + 60)
    assert account.parts["rest"] == pytest.approx(whole.parts["rest"] + 60)
    assert account.epoch_s == pytest.approx(whole.epoch_s, abs=0.06)
    for name in ("start", "evaluation"):
        assert account.parts[name] == pytest.approx(whole.parts[name])
    trained = [one.parts["epochs"] + one.parts["first_epoch_excess"] for one in (account, whole)]
    assert trained[0] == pytest.approx(trained[1])


def test_a_run_that_was_resumed_before_its_first_epoch_and_twice() -> None:
    told = resumed(resumed(log(STEADY), 3, 40.0), 8, 50.0)
    found, account = log_anomalies(told), log_account(told)
    assert [one.name for one in found] == ["resumed"]
    assert "resumed 2 times: 90.0 s" in found[0].words
    assert account is not None
    assert account.parts["start"] == pytest.approx(1.5)
    assert account.parts["rest"] == pytest.approx(90.25)


def test_slow_and_fast_epochs_in_turn_are_two_groups() -> None:
    assert names(log([10.0, *[9.5, 9.5, 9.5, 12.5] * 6])) == ["throughput in two groups"]


def test_a_run_that_slows_down_drifts() -> None:
    assert names(log([9.0 * 1.02**n for n in range(24)])) == ["throughput drifting"]


def test_broken_numbers_of_epochs_are_left_out() -> None:
    told = log(STEADY)
    told[5:5] = [
        Said("epoch_start", 1, {"epoch_num": "two"}),
        Said("epoch_stop", 1, {}),
        Said("epoch_stop", 0, {"epoch_num": True}),
    ]
    assert log_account(told) == log_account(log(STEADY))


def timed(*told: tuple[str, float] | tuple[str, float, int]) -> list[Said]:
    """Records of (key, seconds) or (key, seconds, epoch)."""
    return [Said(key, 1000.0 * at, {"epoch_num": about[0]} if about else {}) for key, at, *about in told]


def spans(*told: tuple[str, float, float, int]) -> list[Said]:
    """Records of epochs and evaluations: (name, start, stop, epoch)."""
    return [
        one
        for name, start, stop, number in told
        for one in timed((f"{name}_start", start, number), (f"{name}_stop", stop, number))
    ]


def test_what_lies_outside_of_the_run_is_not_counted() -> None:
    """What ends as the run starts, or starts as it stops, lies outside; what reaches over is cut."""
    told = [
        *timed(("init_start", 90.0), ("run_start", 100.0)),
        *spans(("epoch", 80.0, 90.0, 1), ("epoch", 90.0, 100.0, 2), ("eval", 95.0, 100.0, 2)),
        *spans(("epoch", 104.0, 116.0, 3), ("epoch", 116.0, 126.0, 4), ("eval", 126.0, 129.0, 4)),
        *spans(("epoch", 130.0, 138.0, 5), ("epoch", 138.0, 150.0, 6), ("eval", 149.0, 150.0, 6)),
        *timed(("run_stop", 145.0)),
        *spans(("epoch", 145.0, 155.0, 7), ("epoch", 156.0, 157.0, 8), ("eval", 145.0, 146.0, 8)),
    ]
    # Epochs of 12, 10, 8 and 7 seconds: the first is 4 s longer than the median of the others.
    parts = {"set_up": 10.0, "start": 4.0, "first_epoch_excess": 4.0, "epochs": 33.0, "evaluation": 3.0, "rest": 1.0}
    assert log_account(told) == LogAccount(parts, 45.0, 8.0)
    before = spans(("epoch", 99.0, 103.0, 1), ("eval", 98.0, 101.0, 1))
    account = log_account([*before, *timed(("run_start", 100.0), ("run_stop", 110.0))])
    assert account is not None
    assert account.parts == {"start": 0, "first_epoch_excess": 0, "epochs": 3.0, "evaluation": 0, "rest": 7.0}


def test_an_evaluation_may_begin_the_run_and_set_up_may_be_none() -> None:
    told = [*timed(("init_start", 100.0), ("run_start", 100.0)), *spans(("eval", 102.0, 105.0, 0))]
    parts = {"set_up": 0.0, "start": 2.0, "first_epoch_excess": 0.0, "epochs": 0.0, "evaluation": 3.0, "rest": 1.0}
    assert log_account([*told, *timed(("run_stop", 106.0))]) == LogAccount(parts, 6.0, None)
    late = log_account(timed(("run_start", 100.0), ("init_start", 100.5), ("run_stop", 106.0)))
    assert late is not None
    assert "set_up" not in late.parts, "it cannot begin after the run"


@pytest.mark.parametrize("stop", [99.0, 100.0])
def test_a_run_without_length_has_no_account(stop: float) -> None:
    assert log_account(timed(("run_start", 100.0), ("run_stop", stop))) is None


def test_the_facts_of_a_log() -> None:
    """The first start and stop of an epoch count. What has no stop, or one before its start, is left out."""
    told = [
        *spans(("epoch", 10.0, 12.0, 1), ("epoch", 12.0, 12.0, 2), ("epoch", 15.0, 14.0, 3), ("eval", 16.0, 19.0, 2)),
        *timed(("epoch_start", 20.0, 4), ("epoch_stop", 21.0, 5), ("epoch_start", 11.0, 1), ("epoch_stop", 30.0, 1)),
    ]
    epochs, evaluations = [Epoch(1, 2.0), Epoch(2, 0.0)], [Evaluation(2, 3.0)]
    assert log_facts(told) == Facts(epochs=epochs, evaluations=evaluations)


def test_epochs_that_end_or_begin_at_a_resume_are_whole() -> None:
    """The gap goes from 20 s, where the last record before it was written, to 50 s."""
    told = [
        *spans(("epoch", 1.0, 9.0, 1), ("epoch", 10.0, 20.0, 2)),
        *timed(("ssd_resumed", 50.0)),
        *spans(("epoch", 50.0, 57.0, 3), ("eval", 57.0, 58.0, 3)),
    ]
    assert [(one.number, one.seconds) for one in log_facts(told).epochs] == [(1, 8.0), (2, 10.0), (3, 7.0)]
    at_once = [*spans(("epoch", 10.0, 20.0, 1)), *timed(("ssd_resumed", 20.0))]
    assert log_anomalies(at_once) == [], "no time has passed"
    assert log_anomalies(timed(("ssd_resumed", 20.0))) == [], "nothing was before it"
