"""The course of a run as anybody's result log tells it: when epochs and evaluations began and ended, and what between.

The parts add up to run_stop - run_start. Where evaluations run beside the training, as in some systems, that time is
the epochs'. A log without events of epochs has its training in the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from ssd.account.facts import Epoch, Evaluation, Facts

__all__ = ["MEANINGS", "Event", "LogAccount", "log_account", "log_facts"]

MEANINGS = {
    "set_up": ("set-up", "From the first init_start until run_start."),
    "start": ("start", "From run_start until the first epoch begins."),
    "first_epoch_excess": ("first-epoch excess", "What the first epoch took longer than the median of the others."),
    "epochs": ("steady epochs", "Training, as the log's epoch events say."),
    "evaluation": ("evaluation", "From eval_start to eval_stop, outside of epochs."),
    "rest": ("the rest", "What no event of the log covers."),
}
"""Title and meaning of each part of a log's account."""


class Event(Protocol):
    """One record of a result log; ssd.mlperf.records has them."""

    @property
    def key(self) -> str:
        """Such as epoch_start."""
        ...

    @property
    def time_ms(self) -> float:
        """Milliseconds since 1970."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Such as epoch_num."""
        ...


@dataclass(frozen=True)
class LogAccount:
    """parts: seconds by name of MEANINGS. wall_s: their sum without set_up. epoch_s: of a steady epoch, or None."""

    parts: Mapping[str, float]
    wall_s: float
    epoch_s: float | None


def log_facts(events: Sequence[Event]) -> Facts:
    """Epochs and evaluations of a log, in the order of their beginning."""
    epochs = [Epoch(int(number), stop - start) for start, stop, number in _spans(events, "epoch")]
    evaluations = [Evaluation(int(number), stop - start) for start, stop, number in _spans(events, "eval")]
    return Facts(epochs=epochs, evaluations=evaluations)


def log_account(events: Sequence[Event]) -> LogAccount | None:
    """Where the time of a log's run went; None for a log without run_start or run_stop."""
    start, stop = _first(events, "run_start"), _first(reversed(events), "run_stop")
    if start is None or stop is None or stop <= start:
        return None
    spans = [(max(one, start), min(end, stop)) for one, end, _ in _spans(events, "epoch") if one < stop and end > start]
    evaluated = [(max(one, start), min(end, stop)) for one, end, _ in _spans(events, "eval") if one < stop]
    trained = _length(spans)
    lengths = [end - one for one, end in spans]
    usual = median(lengths[1:]) if len(lengths) > 1 else None
    excess = max(0.0, lengths[0] - usual) if usual is not None else 0.0
    first = min((one for one, _ in [*spans, *evaluated]), default=start) - start
    init = _first(events, "init_start")
    parts = {"start": first, "first_epoch_excess": excess, "epochs": trained - excess}
    parts["evaluation"] = _length([*spans, *evaluated]) - trained
    parts["rest"] = max(0.0, stop - start - sum(parts.values()))
    set_up = {"set_up": start - init} if init is not None and init <= start else {}
    return LogAccount({**set_up, **parts}, stop - start, usual)


def _spans(events: Iterable[Event], name: str) -> list[tuple[float, float, float]]:
    """(start, stop, number of the epoch) in seconds, of the first start and stop of each epoch."""
    starts: dict[float, float] = {}
    stops: dict[float, float] = {}
    for event in events:
        number = event.metadata.get("epoch_num")
        if isinstance(number, int | float) and not isinstance(number, bool):
            if event.key == f"{name}_start":
                starts.setdefault(number, event.time_ms / 1000)
            elif event.key == f"{name}_stop":
                stops.setdefault(number, event.time_ms / 1000)
    both = [(starts[n], stops[n], n) for n in starts.keys() & stops.keys() if stops[n] >= starts[n]]
    return sorted(both)


def _length(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that the spans cover together."""
    covered, until = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, until))
        until = max(until, stop)
    return covered


def _first(events: Iterable[Event], key: str) -> float | None:
    return next((event.time_ms / 1000 for event in events if event.key == key), None)
