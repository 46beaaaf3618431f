"""What each drawn section gives to the charts and tables: values worked by hand from a few records."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ssd.report import figures
from ssd.report.figures import account_section, curve_section, loss_section, speed_section, telemetry_section
from ssd.report.story import Story
from ssd.report.svg import Mark, Series

RECORDS = [
    {"kind": "start", "time": 1000.0},
    {"kind": "set_up", "time": 1060.0},
    {"kind": "train", "time": 1120.0, "step": 5, "loss": 9.5, "learning_rate": 0.0, "images_per_s": 10.0},
    {"kind": "train", "time": 1180.0, "step": 9, "loss": None, "learning_rate": None, "images_per_s": None},
    {"kind": "checkpoint", "time": 1090.0},
    {"kind": "evaluation", "time": 1240.0, "epoch": 1, "AP": 0.0},
    {"kind": "evaluation", "time": 1300.0, "epoch": 2},
]


@pytest.fixture
def charts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    """What line_chart was asked for."""
    asked: list[tuple[tuple, dict]] = []
    monkeypatch.setattr(figures, "line_chart", lambda *words, **flags: asked.append((words, flags)) or words[0])
    return asked


def test_accuracy_of_epochs_that_were_scored(charts: list) -> None:
    assert curve_section(Story("run", records=RECORDS, summary={"target": 0.23})).startswith(
        "mAP after each evaluation"
    )
    curve_section(Story("run", records=RECORDS))
    [(words, flags), (_, without)] = charts
    assert words[1:] == ([Series("mAP", [(1, 0.0)], ".4f")], "epoch", "mAP")
    assert (flags["level"], without["level"]) == ((0.23, "target 0.23"), None)


def test_loss_and_learning_rate_where_they_are_known(charts: list) -> None:
    drawn = loss_section(Story("run", records=RECORDS))
    assert drawn == "Training loss, mean of each logging interval over all ranksLearning rate"
    assert [words[1] for words, _ in charts] == [
        [Series("loss", [(5, 9.5)])],
        [Series("learning rate", [(5, 0.0)])],
    ]


def test_speed_counts_minutes_from_run_start(charts: list) -> None:
    """Set-up ends at 1060 s: the readings were 1 minute later, the evaluations 3 and 4, the checkpoint half of one."""
    assert speed_section(Story("run", records=RECORDS)).startswith("Images/s of each logging interval, all devices")
    assert speed_section(Story("run", records=RECORDS, published=True)).startswith("Images/s of each epoch, all")
    words, flags = charts[0]
    assert words[1] == [Series("images/s", [(1.0, 10.0)], ",.1f")]
    assert flags["marks"] == [Mark(3.0, "evaluation"), Mark(4.0, "evaluation"), Mark(0.5, "checkpoint")]
    speed_section(Story("run", records=RECORDS[:1] + RECORDS[5:]))
    assert charts[-1][1]["marks"] == (), "no mark without a curve"


@pytest.mark.parametrize(
    ("records", "minutes"),
    [(RECORDS[:3], 1.0), ([RECORDS[0], RECORDS[2]], 2.0), (RECORDS[2:3], 0.0)],
)
def test_a_run_begins_with_its_set_up_or_its_first_record(charts: list, records: list, minutes: float) -> None:
    speed_section(Story("run", records=records))
    assert charts[0][0][1][0].points == [(minutes, 10.0)]


def test_at_most_40_marks_of_a_kind(charts: list) -> None:
    many = [{"kind": "checkpoint", "time": 1060.0 + 60 * n} for n in range(50)]
    speed_section(Story("run", records=[*RECORDS[1:3], *many]))
    assert [mark.x for mark in charts[0][1]["marks"]] == list(range(10, 50))


def test_telemetry_is_a_figure_a_quantity_and_a_curve_a_device(charts: list) -> None:
    readings: list[dict[str, Any]] = [
        {"kind": "telemetry", "time": 1120.0, "power_w": [200.0, None], "temperature_c": [50.0]},
        {"kind": "telemetry", "time": 1180.0, "power_w": [210.0, 300.0], "use_percent": None},
        {"kind": "telemetry", "time": 1240.0, "clock_mhz": [1.0, 2.0, 3.0, 4.0, 5.0]},
    ]
    drawn = telemetry_section(Story("run", records=[*RECORDS[:2], *readings]))
    assert drawn == "PowerTemperatureClock"
    power, heat, clock = charts
    assert power[0][1:] == (
        [Series("device 0", [(1.0, 200.0), (2.0, 210.0)]), Series("device 1", [(2.0, 300.0)])],
        "minutes since run_start",
        "W",
    )
    assert [flags["from_zero"] for _, flags in charts] == [True, False, True]
    assert heat[0][3] == "degrees Celsius"
    assert [one.name for one in clock[0][1]] == [f"device {n}" for n in range(4)]


@pytest.mark.parametrize(("published", "why"), [(True, "a result log has none"), (False, "a CPU has none")])
def test_no_telemetry_says_why(published: bool, why: str) -> None:
    assert why in telemetry_section(Story("run", records=RECORDS, published=published))


ACCOUNT = {
    "wall_s": 100.0,
    "parts": {"imports": 10.0, "step": 60.0, "eval_metric": 20.0, "<odd>": 9.0},
    "titles": {"step": "training"},
    "meanings": {"step": "It trains."},
}


def test_the_account_in_words_and_numbers() -> None:
    drawn = account_section(Story("run", account=ACCOUNT))
    assert drawn.startswith("<p>All time of rank 0, from the launcher&#x27;s start to the summary. The parts do not ov")
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td class=n>(.*?)</td><td class=n>(.*?)</td></tr>", drawn)
    told = [[re.sub("<[^>]+>", "", cell) for cell in row] for row in rows]
    assert told == [
        ["imports", "Python starts, imports the libraries, and reads the config.", "10.00", "10.0%"],
        ["training", "It trains.", "60.00", "60.0%"],
        ["evaluation: metric", "COCO&#x27;s metric is computed, on rank 0.", "20.00", "20.0%"],
        ["&lt;odd&gt;", "", "9.00", "9.0%"],
        ["sum", "The wall clock measured 100.00 s.", "99.00", "100.0%"],
    ]
    assert re.findall(r'swatch (\w+)"', drawn) == ["before", "step", "evaluation", "other"]
    assert 'class="scroll all"' in drawn
    assert "<h3>" not in drawn


def test_parts_without_a_wall_clock_have_no_share() -> None:
    drawn = account_section(Story("run", account={**ACCOUNT, "wall_s": 0.0, "covers": "Rank 1 alone."}))
    assert "%</td></tr><tr>" not in drawn
    assert drawn.startswith("<p>Rank 1 alone. The parts do not overlap.</p>")


def test_no_account() -> None:
    for account in ({}, {"parts": {}, "wall_s": 1.0}):
        assert account_section(Story("run", account=account)) == (
            '<p class="lacking">Not known: the time of this run was not measured by part.</p>'
        )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("eval_gather", "evaluation"),
        ("data_wait", "wait"),
        ("first_epoch_excess", "loss"),
        ("launcher", "before"),
        ("end", "before"),
        ("between", "other"),
        ("unheard of", "other"),
        ("checkpoint", "checkpoint"),
    ],
)
def test_colours_of_parts(name: str, kind: str) -> None:
    assert figures._kind(name) == kind


def test_within_a_step_and_ranks() -> None:
    sampled = {"steps": 6, "seconds_per_step": {"forward": 0.002}, "share": {"forward": 0.25}}
    ranks = {"seconds": [20.0, 31.0], "slowest": 1, "waited_s": 11.0}
    drawn = account_section(
        Story("run", account={**ACCOUNT, "sampled": {**sampled, "clock": "device"}, "ranks": ranks})
    )
    assert "6 steps, timed by the device's own events." in drawn
    assert '<td>forward</td><td class=n><data value="2.0">2.00</data></td><td class=n>25.0%</td>' in drawn
    assert 'Rank 1 was the slowest: the other ranks waited for it for about <data value="11.0">11.00</data> s' in drawn
    assert drawn.count('<td class=n><data value="1">1</data></td><td class=n><data value="31.0">31.00</data>') == 1
    assert "by the host's clock." in account_section(Story("run", account={**ACCOUNT, "sampled": sampled}))
