"""The tables of a comparison: what is in them, what every form says, and that nothing shown is obeyed."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from ssd.mlperf.notice import OURS
from ssd.report.side_by_side import SAID, Side, as_json, as_page, letter, sections


def side(name: str, minutes: list[float], **values: Any) -> Side:
    facts: dict[str, Any] = {
        "runs": len(minutes),
        "reached": len(minutes),
        "epochs": [50.0] * len(minutes),
        "rates": [1000.0],
        "devices": 8,
        "round": OURS,
        "division": "open",
        "source": f"runs/{name}",
    }
    return Side(name=name, minutes=minutes, **{**facts, **values})


PUBLISHED = side("1.1 X sys", [8.0], round="1.1", division="closed", source="https://example.org/v1.1", rates=[12000.0])


def table(sides: list[Side], title: str) -> list[list[str]]:
    (found,) = [one for one in sections(sides) if one.title.startswith(title)]
    return [list(row) for row in found.rows]


def test_medians_spread_and_rates_a_device() -> None:
    (row,) = table([side("mine", [9.0, 10.0, 12.0])], "Median")
    assert row == ["A mine", "3", "3", "10.00 (9.00 to 12.00)", "50 (50 to 50)", "125.0", "8"]


def test_the_others_are_divided_by_the_first() -> None:
    rows = table([side("a", [10.0]), PUBLISHED], "Divided by A")
    assert rows == [["B 1.1 X sys", "0.800 (n 1 and 1: no interval)", "12.000 (n 1 and 1: no interval)"]]


def test_another_task_is_not_compared() -> None:
    mine = side("a", [10.0], task="64 images, width 0.25")
    assert table([mine, PUBLISHED], "Divided by A") == [
        ["B 1.1 X sys", "not compared: it trains COCO 2017, and A 64 images, width 0.25", ""]
    ]
    content = json.loads(as_json([mine, PUBLISHED]))
    assert content["sides"][1]["divided_by_first"] == {"minutes": None, "images_per_s_a_device": None}


def test_what_is_unknown_is_empty() -> None:
    (row,) = table([side("a", [], devices=None, epochs=[])], "Median")
    assert row == ["A a", "0", "0", "", "", "", ""]


def test_only_what_differs_is_shown() -> None:
    one = side("a", [1.0], config={"x": "1", "y": "2", "own": "3"}, machine={"cpu": "p"}, account={"data": [1.0, 3.0]})
    other = side("b", [1.0], config={"x": "1", "y": "5"}, machine={"cpu": "q"}, account={"data": [4.0]})
    assert table([one, other], "Config keys") == [["y", "2", "5"]]
    assert table([one, other], "Machines") == [["cpu", "p", "q"]]
    assert table([one, other], "Where the time went") == [["data", "2.0", "4.0"]]
    assert "Config keys that differ" not in [one.title for one in sections([one, one])]


def test_the_account_of_logs_and_that_of_our_processes_stand_apart() -> None:
    """A part of the second is no part of one of the first, though both have a start."""
    ours, log = side("a", [1.0], account={"start": [1.0], "  start": [0.5], "  step": [2.0]}), {"start": [3.0]}
    both = [ours, side("b", [1.0], account=log)]
    assert table(both, "Where the time went") == [["start", "1.0", "3.0"]]
    assert table(both, "Where it went in a process") == [["start", "0.5", ""], ["step", "2.0", ""]]
    assert not any("in a process" in one.title for one in sections([both[1]] * 2))


def test_what_is_unusual_is_said() -> None:
    long = side("a", [1.0], unusual=["first epoch long: it took 20 s"])
    assert table([long, side("b", [1.0])], "What is unusual") == [["A a", "first epoch long: it took 20 s"]]
    assert json.loads(as_json([long]))["sides"][0]["unusual"] == ["first epoch long: it took 20 s"]


def test_every_form_names_round_division_and_source_and_what_is_not_verified() -> None:
    sides = [side("a", [10.0]), PUBLISHED]
    assert "Not verified by MLCommons" in SAID
    assert "results of this benchmark, not MLPerf results" in SAID
    assert table(sides, "Where each row comes from") == [
        ["A a", OURS, "open", "runs/a"],
        ["B 1.1 X sys", "1.1", "closed", "https://example.org/v1.1"],
    ]
    page, content = as_page(sides), json.loads(as_json(sides))
    assert "Not verified by MLCommons" in page
    assert "https://example.org/v1.1" in page
    assert content["notice"] == SAID
    assert [(one["ours"], one["round"], one["verified_by_mlcommons"]) for one in content["sides"]] == [
        (True, OURS, False),
        (False, "1.1", False),
    ]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)


def test_nothing_shown_is_obeyed_and_the_page_asks_for_nothing() -> None:
    bad = "<script>alert(1)</script>'\"&"
    page = as_page([side(bad, [1.0], source=bad, config={bad: bad}), side("b", [1.0], config={bad: "x"})])
    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert {"img", "link", "iframe"}.isdisjoint(reader.tags)
    assert len(page) < 250_000


def test_letters_go_on() -> None:
    assert [letter(place) for place in (0, 25, 26, 52)] == ["A", "Z", "A1", "A2"]
