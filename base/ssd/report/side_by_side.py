"""Runs and published systems side by side: times, rates, ratios, account, configs, machines; as text, page and JSON.

Every form says which rows are published and where they come from, that nobody verified them, and that ours
are results of this benchmark and none of MLPerf's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from statistics import median
from typing import Any

from ssd.mlperf.notice import NOTICE, OURS, PUBLISHED
from ssd.report.spread import Ratio, ratio_of, spread_text

__all__ = ["FINER", "SAID", "Section", "Side", "as_json", "as_page", "sections"]

SAID = f"{PUBLISHED} {NOTICE}"
"""Stands under every form of a comparison."""
FINER = "  "
"""Before the name of a part of the account that a run of this project measures itself, and that no log tells."""
HEADINGS = ("", "n", "reached", "minutes to target", "epochs", "images/s a device", "devices")


@dataclass(frozen=True)
class Side:
    """One set of runs of one system.

    runs: how many. minutes, epochs: to the target, of each run that reached it. rates: steady images/s of the whole
    system, of each run that says it. devices: accelerators, None where unknown. task: what is trained, "" for the
    benchmark's own. account: part -> seconds of each run, FINER before those of summary.json. config, machine: name ->
    value, values of several runs joined. unusual: findings in words (ssd.account.anomalies). round, division, source:
    of a published row; for our own OURS, its division, and its path.
    """

    name: str
    runs: int
    reached: int
    minutes: Sequence[float]
    epochs: Sequence[float]
    rates: Sequence[float]
    devices: int | None
    round: str
    division: str
    source: str
    task: str = ""
    account: dict[str, list[float]] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    unusual: Sequence[str] = ()

    @property
    def device_rates(self) -> list[float]:
        """Steady images/s a device, of each run."""
        return [rate / self.devices for rate in self.rates] if self.devices else []


@dataclass(frozen=True)
class Section:
    """A table: the first column names the row."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def sections(sides: Sequence[Side]) -> list[Section]:
    """All tables, without those that would be empty. The first side is what the others are compared with."""
    names = [f"{letter(place)} {side.name}" for place, side in enumerate(sides)]
    figures = [
        (
            name,
            str(side.runs),
            str(side.reached),
            spread_text(side.minutes, ".2f"),
            spread_text(side.epochs, "g"),
            spread_text(side.device_rates, ",.1f"),
            str(side.devices or ""),
        )
        for name, side in zip(names, sides, strict=True)
    ]
    ratios = [(name, *_ratio_cells(side, sides[0])) for name, side in zip(names[1:], sides[1:], strict=True)]
    sources = [(name, one.round, one.division, one.source) for name, one in zip(names, sides, strict=True)]
    unusual = [(name, " ".join(one.unusual)) for name, one in zip(names, sides, strict=True) if one.unusual]
    letters = [letter(place) for place in range(len(sides))]
    found = [
        Section("Median over n runs, and in brackets the least and the most", HEADINGS, figures),
        Section("Divided by A", ("", "minutes to target", "images/s a device"), ratios),
        Section("Where the time went, by result logs: seconds, median over runs", ("", *letters), _account(sides)),
        Section(
            "Where it went in a process of rank 0, from the launcher's start: seconds, median over runs",
            ("", *letters),
            _account(sides, FINER),
        ),
        Section("What is unusual", ("", ""), unusual),
        Section("Config keys that differ", ("", *letters), _differing([side.config for side in sides])),
        Section("Machines that differ", ("", *letters), _differing([side.machine for side in sides])),
        Section("Where each row comes from", ("", "round", "division", "source"), sources),
    ]
    return [one for one in found if one.rows]


def letter(place: int) -> str:
    """A, B, ... Z, A1, B1, ...: a short name for a side, by its place from 0."""
    return chr(ord("A") + place % 26) + (str(place // 26) if place >= 26 else "")


def _ratio_cells(side: Side, first: Side) -> tuple[str, str]:
    if side.task != first.task:
        return (f"not compared: it trains {side.task or 'COCO 2017'}, and A {first.task or 'COCO 2017'}", "")
    ratios = _ratios(side, first)
    minutes, rates = (ratios[name] for name in ("minutes", "images_per_s_a_device"))
    return ("" if minutes is None else str(minutes)), ("" if rates is None else str(rates))


def _ratios(side: Side, first: Side) -> dict[str, Ratio | None]:
    """Of a side to the first one; None where a number is missing, or where they do not train the same."""
    if side.task != first.task:
        return {"minutes": None, "images_per_s_a_device": None}
    return {
        "minutes": ratio_of(side.minutes, first.minutes),
        "images_per_s_a_device": ratio_of(side.device_rates, first.device_rates),
    }


def _account(sides: Sequence[Side], kind: str = "") -> list[tuple[str, ...]]:
    """Rows of the account; kind: FINER for the parts that a run of ours measures itself, "" for those of its log."""
    parts = dict.fromkeys(part for side in sides for part in side.account if part.startswith(FINER) == bool(kind))
    return [
        (
            part.removeprefix(kind),
            *(f"{median(side.account[part]):,.1f}" if side.account.get(part) else "" for side in sides),
        )
        for part in parts
    ]


def _differing(facts: Sequence[dict[str, str]]) -> list[tuple[str, ...]]:
    """Names that at least two sides know and that have more than one value."""
    names = dict.fromkeys(name for one in facts for name in one)
    known = {name: {one[name] for one in facts if name in one} for name in names}
    differ = [name for name, values in known.items() if len(values) > 1]
    return [(name, *(one.get(name, "") for one in facts)) for name in differ]


def as_json(sides: Sequence[Side]) -> str:
    """Every side with its numbers run by run, and the ratios to the first one."""
    entries: list[dict[str, Any]] = []
    for place, side in enumerate(sides):
        ratios = _ratios(side, sides[0]) if place else {}
        entries.append(
            {
                "letter": letter(place),
                **asdict(side),
                "images_per_s_a_device": side.device_rates,
                "ours": side.round == OURS,
                "verified_by_mlcommons": False,
                "divided_by_first": {name: one and asdict(one) for name, one in ratios.items()},
            }
        )
    return json.dumps({"schema": "ssd-compare-1", "notice": SAID, "sides": entries}, indent=1) + "\n"


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}caption{text-align:left;font-weight:600}
td,th{padding:.2rem .5rem;text-align:left;vertical-align:top;border-bottom:1px solid #8888}section{margin:2rem 0}"""


def as_page(sides: Sequence[Side]) -> str:
    """One offline HTML page with the tables. Everything shown is escaped."""
    tables = "".join(
        f"<section class=wide tabindex=0 aria-label='{escape(one.title, quote=True)}'><table>"
        f"<caption>{escape(one.title)}</caption><thead><tr>{_cells(one.headings, 'th scope=col')}</tr></thead><tbody>"
        f"{''.join(f'<tr>{_row(row)}</tr>' for row in one.rows)}</tbody></table></section>"
        for one in sections(sides)
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Runs side by side</title><style>{STYLE}</style><main><h1>Runs side by side</h1>"
        f"<p>{escape(SAID)}</p>{tables}</main></html>\n"
    )


def _row(cells: Sequence[str]) -> str:
    return _cells(cells[:1], "th scope=row") + _cells(cells[1:], "td")


def _cells(texts: Iterable[str], tag: str) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag.split()[0]}>" for text in texts)
