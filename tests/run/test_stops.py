"""Signals that ask a run to stop: which are heard, what all ranks agree on, and what becomes of one that is late."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ssd.compute.ranks import Ranks
from ssd.run.stops import STOP_SIGNALS, Stops


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of before, whatever a test does."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ask(number: int) -> None:
    os.kill(os.getpid(), number)  # the handler has run before kill returns, since only this thread takes signals


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_run_alone_stops_after_the_step(number: signal.Signals) -> None:
    stops = Stops(Ranks())
    before = signal.getsignal(number)
    with stops.listening():
        assert not stops.after_step(save=False)
        ask(number)
        ask(STOP_SIGNALS[0])
        assert stops.after_step(save=False)
        assert stops.number == number, "the first of several counts"
    assert signal.getsignal(number) is before


def test_a_checkpoint_by_the_time_is_no_stop() -> None:
    stops = Stops(Ranks())
    assert stops.after_step(save=True)
    assert stops.number == 0
    assert not stops.after_step(save=False)


def test_nohup_is_heeded() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    stops = Stops(Ranks())
    with stops.listening():
        ask(signal.SIGUSR1)
        assert not stops.after_step(save=False)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


def test_a_thread_hears_nothing_and_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def listen() -> Any:
        with Stops(Ranks()).listening():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(listen).result() is before


def test_a_run_that_does_not_stop_in_time_is_ended_as_before() -> None:
    """By the handler that the worker has set: it unwinds the run."""
    ended = threading.Event()
    numbers: list[int] = []

    def end(number: int, frame: object) -> None:
        numbers.append(number)
        ended.set()

    signal.signal(signal.SIGTERM, end)
    with Stops(Ranks(), seconds=0).listening():
        ask(signal.SIGTERM)
        assert ended.wait(60)
    assert numbers == [signal.SIGTERM]


class TwoRanks:
    """Two ranks in this process: an exchange is over when both have put their number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rounds: list[dict[str, Any]] = [{}, {}]
        self.counts = [0, 0]
        self.results: dict[int, list[tuple[torch.Tensor, Future[None]]]] = {}
        self.now = 0
        monkeypatch.setattr(dist, "all_reduce", self.all_reduce)

    def all_reduce(self, word: torch.Tensor, op: Any, group: Any, async_op: bool) -> Any:
        assert (op, async_op) == (dist.ReduceOp.MAX, True)
        place = self.counts[group]
        self.counts[group] += 1
        self.results.setdefault(place, []).append((word, Future()))
        exchange = self.results[place]
        if len(exchange) == 2:
            most = torch.stack([one for one, _ in exchange]).amax(0)
            for one, done in exchange:
                one.copy_(most)
                done.set_result(None)
        mine = exchange[-1][1]
        return type("Work", (), {"wait": lambda self, timeout: mine.result(0)})()


def test_all_ranks_stop_after_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is asked at step 3; both know it at step 4, and neither has begun another exchange."""
    TwoRanks(monkeypatch)
    stops = [Stops(Ranks(rank, 2, host_group=rank)) for rank in (0, 1)]
    answers: list[list[bool]] = []
    with stops[1].listening():
        for step in (1, 2, 3, 4):
            if step == 3:
                ask(signal.SIGUSR1)
            answers.append([one.after_step(save=step == 1 and one is stops[0]) for one in stops])
            assert [one.number for one in stops] == ([signal.SIGUSR1] * 2 if step == 4 else [0, 0])
    assert answers == [[False, False], [True, True], [False, False], [True, True]]
    monkeypatch.setattr(Ranks, "barrier", lambda ranks: None)
    for one in stops:
        one.settle()


def test_what_is_under_way_at_the_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = TwoRanks(monkeypatch)
    stops = [Stops(Ranks(rank, 2, host_group=rank)) for rank in (0, 1)]
    for one in stops:
        one.after_step(save=False)
    monkeypatch.setattr(Ranks, "barrier", None)
    for one in stops:
        one.settle()
        one.settle()
    assert ranks.counts == [1, 1]


def test_all_ranks_know_of_a_score_after_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 has it at step 2; one exchange later both know, and nobody stops or saves for it."""
    TwoRanks(monkeypatch)
    stops = [Stops(Ranks(rank, 2, host_group=rank)) for rank in (0, 1)]
    known: list[list[bool]] = []
    for step in (1, 2, 3, 4):
        asked = [one.after_step(save=False, scored=step == 2 and one is stops[0]) for one in stops]
        assert asked == [False, False]
        known.append([one.scored for one in stops])
    assert known == [[False, False], [False, False], [True, True], [False, False]]
    alone = Stops(Ranks())
    assert not alone.after_step(save=False, scored=True)
    assert alone.scored
