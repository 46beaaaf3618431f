"""trace.json: the account of a run over time, for Perfetto (ui.perfetto.dev) and chrome://tracing; a track a rank.

Records say when something ended and how long it took. Data wait and steps alternate many times a second: within an
epoch their sums are drawn one behind the other, and their names say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssd.account.parts import PARTS

__all__ = ["make_trace"]

Record = Mapping[str, Any]


def make_trace(records: Sequence[Record], name: str) -> dict[str, Any]:
    """The trace of a run's metrics.jsonl, in Chrome's Trace Event Format; times in microseconds from the first one."""
    events = [event for record in records for event in _events(record)]
    zero = min((event["ts"] for event in events), default=0.0)
    for event in events:
        event["ts"] = round(event["ts"] - zero, 1)
    events = [event for event in events if event["ph"] != "X"] + _nested([one for one in events if one["ph"] == "X"])
    ranks = sorted({event["tid"] for event in events if event["ph"] == "X"})
    named: list[dict[str, Any]] = [{"ph": "M", "pid": 0, "name": "process_name", "args": {"name": name}}]
    named += [
        {"ph": "M", "pid": 0, "tid": rank, "name": "thread_name", "args": {"name": f"rank {rank}"}} for rank in ranks
    ]
    return {"traceEvents": named + sorted(events, key=lambda event: (event["ts"], -event.get("dur", 0.0)))}


def _nested(slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slices of a track that lie in each other or apart: where rounding lets two overlap, the later begins later."""
    opened: dict[int, list[tuple[float, float]]] = {}
    for one in sorted(slices, key=lambda event: (event["ts"], -event["dur"])):
        around, end = opened.setdefault(one["tid"], []), one["ts"] + one["dur"]
        while around and (around[-1][1] <= one["ts"] or around[-1][1] < end):
            one["ts"] = max(one["ts"], around.pop()[1])
        if around:
            one["ts"] = max(one["ts"], around[-1][0])
        one["dur"] = round(max(0.0, end - one["ts"]), 1)
        around.append((one["ts"], end))
    return slices


def _events(record: Record) -> Iterator[dict[str, Any]]:
    kind, end = record["kind"], record.get("time", 0.0)
    if kind == "set_up":
        yield from _row(0, end, record["parts"])
    elif kind == "epoch":
        for rank, told in enumerate(record.get("ranks") or []):
            parts = {"data_wait": told["data_wait"], "step": told["step"]}
            yield _slice(f"epoch {record['epoch']}", rank, end - sum(parts.values()), sum(parts.values()))
            yield from _row(rank, end, parts, ", summed")
    elif kind == "evaluation":
        for rank, parts in enumerate(record.get("ranks") or []):
            whole = sum(parts.values())
            yield _slice(f"evaluation, epoch {record['epoch']}", rank, end - whole, whole)
            yield from _row(rank, end, parts)
    elif kind == "checkpoint":
        yield _slice("checkpoint", 0, end - record["seconds"], record["seconds"])
    elif kind == "train":
        for name in ("loss", "images_per_s", "learning_rate"):
            if record.get(name) is not None:
                yield {"ph": "C", "pid": 0, "name": name, "ts": end * 1e6, "args": {name: record[name]}}


def _row(rank: int, end: float, parts: Mapping[str, float], more: str = "") -> Iterator[dict[str, Any]]:
    """Parts one behind the other, the last one until `end`."""
    at = end - sum(parts.values())
    for name in [one for one in PARTS if one in parts]:
        yield _slice(PARTS[name].title + more, rank, at, parts[name])
        at += parts[name]


def _slice(name: str, rank: int, start: float, seconds: float) -> dict[str, Any]:
    return {"ph": "X", "pid": 0, "tid": rank, "name": name, "ts": start * 1e6, "dur": round(seconds * 1e6, 1)}
