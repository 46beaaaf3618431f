"""What a report tells of a run, gathered from its folder; nothing is computed here that a file of the folder says.

A file that is missing or broken takes its section away, which then says what is lacking.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssd.account.anomalies import find_anomalies
from ssd.account.books import make_account
from ssd.account.facts import facts_of, read_metrics
from ssd.account.trace import make_trace
from ssd.errors import DataError
from ssd.files import write_whole
from ssd.text import said_by

__all__ = ["DETAILS", "METRICS", "MISREAD", "TRACE", "Story", "story_of_run", "write_trace"]

METRICS, DETAILS, TRACE = "metrics.jsonl", "evaluation.json", "trace.json"
"""Files of a run's folder. evaluation.json: its last evaluation by category and by kind of error."""
MISREAD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What code raises that reads a run's files, where one of them holds what no run writes."""


@dataclass(frozen=True)
class Story:
    """A run, as far as its files tell. records: of metrics.jsonl. summary, config, system, details: of their files.

    config: key -> {"value": ..., "from": ...}. account: as ssd.account.books makes it, {} where nothing was measured.
    findings: name and words of what is unusual. picture: the file, None without one. lacks: what the files do not say.
    """

    name: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    account: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Mapping[str, str]] = ()
    picture: Path | None = None
    lacks: Sequence[str] = ()
    published: bool = False

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """The records of a kind."""
        return [record for record in self.records if record["kind"] == kind]


def story_of_run(folder: Path) -> Story:
    """The story of a run's folder. Raises DataError where it holds no metrics.jsonl, or one that no run writes."""
    if not (folder / METRICS).is_file():
        raise DataError(f"{folder} holds no {METRICS}: name a run's folder, or a result log")
    records = read_metrics(folder / METRICS)
    summary = _object(folder / "summary.json")
    try:
        account = summary.get("account") or _account_so_far(records)
        found = find_anomalies(facts_of(records))
    except MISREAD as error:
        raise DataError(
            f"{folder / METRICS}: a record is not as docs/metrics.schema.json says ({said_by(error)})"
        ) from error
    picture = folder / str(summary.get("picture") or "detections.jpg")
    lacks = []
    if not summary:
        lacks.append(
            "The run has not ended, or was killed: it left no summary.json. What it logged until then follows."
        )
    return Story(
        name=folder.resolve().name,
        summary=summary,
        records=records,
        config=_object(folder / "config.json"),
        system=_object(folder / "system.json"),
        details=_object(folder / DETAILS),
        account=account,
        findings=[{"name": one.name, "words": one.words} for one in found],
        picture=picture if picture.is_file() else None,
        lacks=lacks,
    )


def write_trace(folder: Path) -> None:
    """Write trace.json of a run's folder, whole or not at all."""
    write_whole(folder / TRACE, json.dumps(make_trace(read_metrics(folder / METRICS), folder.name)) + "\n")


def _account_so_far(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The account of a run without a summary: as it stood when it was last noted."""
    noted = [record for record in records if record["kind"] == "account"]
    return make_account(noted[-1]["parts"], noted[-1]["wall_s"], records) if noted else {}


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _no_number(word: str) -> None:
    """Raise ValueError for NaN and the infinities, which JSON does not have and no run writes."""
    raise ValueError(f"{word} is no number of JSON")
