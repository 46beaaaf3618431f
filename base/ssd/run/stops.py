"""What a run is asked for while it trains: to stop with a checkpoint, by a signal; a checkpoint, by the time.

SIGTERM and SIGUSR1 are what schedulers send before they end a job. A run that gets one finishes its step, writes a
checkpoint, and ends. The ranks get a signal at different steps, but all have to stop after the same one. So they
agree after each step, by one number that gloo exchanges while the next step is computed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from ssd.compute.ranks import Ranks
from ssd.signals import handled_by

__all__ = ["STOP_SECONDS", "STOP_SIGNALS", "Stops"]

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
STOP_SECONDS = 25.0
"""The seconds in which a run that was asked to stop does so. Then the signal has the effect that it has elsewhere: it
ends the run at once. torchrun's agent, which passes signals on, sends SIGKILL after 30 s."""
SAVE = 1
"""The number that asks for a checkpoint. The numbers of the signals are larger."""


class Stops:
    """Hears the signals that ask a run to stop, and lets all ranks agree. Owner: the main thread.

    number: the signal by which the run stops, once all ranks know of it; before, 0. scored: whether all ranks know that
    rank 0 has a score (ssd.run.scoring).
    """

    def __init__(self, ranks: Ranks, seconds: float = STOP_SECONDS, timeout: float = 600.0) -> None:
        """seconds: those in which a run that was asked to stop does so. timeout: of an exchange, in seconds.

        A process that was lost is found here first: a host is ahead of its device, whose collectives cannot say it.
        """
        self._ranks, self._seconds, self._timeout = ranks, seconds, timedelta(seconds=timeout)
        self._heard = 0
        self._late = False
        self._pending: tuple[Any, torch.Tensor] | None = None
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self.number = 0
        self.scored = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A context in which STOP_SIGNALS ask the run to stop. Those that were ignored, as by nohup, still are."""
        numbers = STOP_SIGNALS if threading.current_thread() is threading.main_thread() else ()
        with handled_by(self._hear, numbers) as self._before:
            try:
                yield
            finally:
                if self._timer:
                    self._timer.cancel()

    def after_step(self, save: bool, scored: bool = False) -> bool:
        """Say what this rank asks for after a step, and learn what all of them do. Every rank must call it.

        save: whether this rank wants a checkpoint. scored: whether it has a score that others wait for. Returns whether
        the run writes a checkpoint now. `number` is set where it stops. What a rank of several asks for is answered
        after its next step, so that nobody waits for the exchange.
        """
        mine = self._heard or (SAVE if save else 0)
        if self._ranks.host_group is None:
            asked, self.scored = mine, scored
        else:
            asked, known = self._exchanged()
            self.scored = bool(known)
            if asked <= SAVE:  # else all ranks stop here, and nobody takes part in another exchange
                word = torch.tensor([mine, int(scored)])
                work = dist.all_reduce(word, dist.ReduceOp.MAX, group=self._ranks.host_group, async_op=True)
                self._pending = work, word
        if asked > SAVE and not self.number:
            self.number = asked
            if self._ranks.is_rank_0:
                log.info("%s: the run stops after this step, with a checkpoint", signal.Signals(asked).name)
        return asked > 0

    def settle(self) -> None:
        """Finish the exchange that is under way. Every rank must call it, after its last step.

        Where the run stops, it waits until rank 0 has written its checkpoint. A launcher that saw another rank end
        might cut rank 0 off.
        """
        self._exchanged()
        if self.number:
            self._ranks.barrier()

    def _exchanged(self) -> tuple[int, int]:
        """What the ranks asked for, and whether one has a score, at the exchange that is under way."""
        if self._pending is None:
            return 0, 0
        work, word = self._pending
        self._pending = None
        work.wait(self._timeout)
        asked, scored = word.tolist()
        return asked, scored

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals. A second one changes nothing: a scheduler and the launcher may both send it."""
        if self._late:
            before = self._before[number]
            if callable(before):
                before(number, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif not self._heard:
            self._heard = number
            self._timer = threading.Timer(self._seconds, self._end, [number])
            self._timer.daemon = True
            self._timer.start()

    def _end(self, number: int) -> None:
        """Send the signal again, for its usual effect. Runs in the timer's thread."""
        self._late = True
        os.kill(os.getpid(), number)
