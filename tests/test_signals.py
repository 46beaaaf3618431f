"""Handlers of signals: set for a while, and put back however it ends."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

import pytest

from ssd.signals import handled_by

BOTH = (signal.SIGUSR1, signal.SIGUSR2)


def test_handlers_are_set_and_put_back() -> None:
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    earlier = signal.getsignal(signal.SIGUSR1)
    with suppress(KeyError), handled_by(hear, BOTH) as before:
        assert before == dict.fromkeys(BOTH, earlier)
        for number in BOTH:
            os.kill(os.getpid(), number)
        raise KeyError
    assert heard == [*BOTH]
    assert [signal.getsignal(number) for number in BOTH] == [earlier] * 2


def test_what_was_ignored_stays_so() -> None:
    """As nohup leaves SIGHUP. What the block itself set for such a signal is not put back either."""
    earlier = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with handled_by(lambda number, frame: pytest.fail("it was ignored"), BOTH) as before:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert list(before) == [signal.SIGUSR2]
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, earlier)
