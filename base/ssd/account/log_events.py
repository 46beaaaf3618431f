"""The course of a run as anybody's result log tells it: when epochs and evaluations began and ended, and what between.

The parts add up to run_stop - run_start. Where evaluations run beside the training, as in some systems, that time is
the epochs'. A log without events of epochs has its training in the rest. Of a resumed run of this project the time
from the last record before a resume to the resume is in the rest, and an epoch or evaluation around it is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from ssd.account.anomalies import Finding, find_anomalies
from ssd.account.facts import Epoch, Evaluation, Facts

__all__ = ["MEANINGS", "RESUMED", "Event", "LogAccount", "log_account", "log_anomalies", "log_facts"]

RESUMED = "ssd_resumed"
"""The key that a log of this project has once for each resume."""

MEANINGS = {
    "set_up": ("set-up", "From the first init_start until run_start."),
    "start": ("start", "From run_start until the first epoch begins."),
    "first_epoch_excess": ("first-epoch excess", "What the first epoch took longer than the median of the others."),
    "epochs": ("steady epochs", "Training, as the log's epoch events say."),
    "evaluation": ("evaluation", "From eval_start to eval_stop, outside of epochs."),
    "rest": ("the rest", "What no event of the log covers, and the time until a resume."),
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
    """Epochs and evaluations of a log, in the order of their beginning; those in which the run was resumed are not."""
    gaps = _gaps(events)
    epochs = [Epoch(int(number), stop - start) for start, stop, number in _whole(_spans(events, "epoch"), gaps)]
    evaluations = [
        Evaluation(int(number), stop - start) for start, stop, number in _whole(_spans(events, "eval"), gaps)
    ]
    return Facts(epochs=epochs, evaluations=evaluations)


def log_anomalies(events: Sequence[Event]) -> list[Finding]:
    """Everything unusual in a log. A resume is named as one."""
    found = find_anomalies(log_facts(events))
    if not (gaps := [stop - start for start, stop in _gaps(events)]):
        return found
    times = "" if len(gaps) == 1 else f" {len(gaps)} times"
    words = (
        f"The run was resumed{times}: {sum(gaps):.1f} s passed from the last record before to the resume. They hold "
        "the steps that were lost, the pause and the set-up; and of a checkpoint inside of an epoch, its steps before."
    )
    return [Finding("resumed", words), *found]


def log_account(events: Sequence[Event]) -> LogAccount | None:
    """Where the time of a log's run went; None for a log without run_start or run_stop."""
    start, stop = _first(events, "run_start"), _first(reversed(events), "run_stop")
    if start is None or stop is None or stop <= start:
        return None
    gaps = _gaps(events)
    epochs = _within(_spans(events, "epoch"), start, stop)
    spans = [(one, end) for one, end, _ in epochs]
    evaluated = [(one, end) for one, end, _ in _within(_spans(events, "eval"), start, stop)]
    lengths = {n: end - one for one, end, n in _whole(epochs, gaps)}
    first_epoch = lengths.pop(epochs[0][2], None) if epochs else None
    usual = median(lengths.values()) if lengths else None
    excess = max(0.0, first_epoch - usual) if usual is not None and first_epoch is not None else 0.0
    begun = min((one for one, _ in [*spans, *evaluated]), default=start)
    trained = _length(_without(spans, gaps))
    init = _first(events, "init_start")
    parts = {
        "start": _length(_without([(start, begun)], gaps)),
        "first_epoch_excess": excess,
        "epochs": trained - excess,
        "evaluation": _length(_without([*spans, *evaluated], gaps)) - trained,
    }
    parts["rest"] = max(0.0, stop - start - sum(parts.values()))
    set_up = {"set_up": start - init} if init is not None and init <= start else {}
    return LogAccount({**set_up, **parts}, stop - start, usual)


def _gaps(events: Iterable[Event]) -> list[tuple[float, float]]:
    """(start, stop) in seconds around each resume: from the record before it to its own."""
    gaps, before = [], None
    for event in events:
        now = event.time_ms / 1000
        if event.key == RESUMED and before is not None and now > before:
            gaps.append((before, now))
        before = now
    return gaps


def _whole(
    spans: Iterable[tuple[float, float, float]], gaps: Sequence[tuple[float, float]]
) -> list[tuple[float, float, float]]:
    """The spans in which no gap lies."""
    return [(one, end, n) for one, end, n in spans if all(gap[1] <= one or gap[0] >= end for gap in gaps)]


def _within(spans: Iterable[tuple[float, float, float]], start: float, stop: float) -> list[tuple[float, float, float]]:
    """What of the spans lies between two moments."""
    cut = [(max(one, start), min(end, stop), n) for one, end, n in spans]
    return [(one, end, n) for one, end, n in cut if one < end]


def _without(spans: Iterable[tuple[float, float]], gaps: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The pieces of the spans that lie outside of the gaps. Some may end before they begin: they have no length."""
    pieces = list(spans)
    for low, high in gaps:
        pieces = [(one, min(end, low)) for one, end in pieces] + [(max(one, high), end) for one, end in pieces]
    return pieces


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
