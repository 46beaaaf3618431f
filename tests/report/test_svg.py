"""Curves and bars: thinned without losing a spike, with their numbers in full, and everything escaped."""

from __future__ import annotations

import re

import pytest

from ssd.report.svg import Mark, Series, line_chart, number, stacked_bar, table, thinned, ticks

NASTY = "<script>alert('\"&')</script>"


def test_few_points_stay_as_they_are() -> None:
    assert thinned([(0, 1.0), (1, 2.0)]) == [(0, 1.0), (1, 2.0)]


def test_a_long_curve_keeps_its_ends_and_its_spikes() -> None:
    points = [(float(n), n % 7 / 7) for n in range(20_000)]
    points[12_345] = (12_345.0, 50.0)
    points[777] = (777.0, -50.0)
    kept = thinned(points)
    assert len(kept) <= 500
    assert {points[0], points[-1], points[12_345], points[777]} <= set(kept)
    assert kept == sorted(kept)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.23, [0, 0.05, 0.1, 0.15, 0.2]),
        (3, 3, [3]),
        (-20, 30, [-20, -10, 0, 10, 20, 30]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_epochs_have_no_halves() -> None:
    assert ticks(1, 3, 8, whole=True) == [1, 2, 3]


def test_a_chart_has_its_numbers_in_a_table_and_in_words() -> None:
    drawn = line_chart("mAP", [Series("mAP", [(1, 0.1), (2, 0.25)], ".2f")], "epoch", "mAP", level=(0.23, "target"))
    assert re.findall(r'<data value="([^"]+)">([^<]+)</data>', drawn) == [
        ("1", "1"),
        ("0.1", "0.10"),
        ("2", "2"),
        ("0.25", "0.25"),
    ]
    assert "mAP: 2 values from 0.1 to 0.25, least 0.1, most 0.25. target: 0.23" in drawn
    assert 'role="img"' in drawn
    low, high = (float(y) for y in re.search(r'points="[\d.]+,([\d.]+) [\d.]+,([\d.]+)"', drawn).groups())
    level = float(re.search(r'class="level"[^>]* y1="([\d.]+)"', drawn).group(1))
    assert high < level < low, "up is more, and the target lies between"


def test_a_long_table_has_the_first_and_the_last_value() -> None:
    drawn = line_chart("loss", [Series("loss", [(n, float(n)) for n in range(1, 1001)])], "step", "loss")
    shown = [float(value) for value in re.findall(r'<td class=n><data value="([^"]+)"', drawn)][::2]
    assert (shown[0], shown[-1]) == (1, 1000)
    assert len(shown) <= 61
    assert "each 17th of 1000" in drawn


@pytest.mark.parametrize("points", [[(1.0, 5.0)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, -3.0)]])
def test_a_flat_curve_is_drawn(points: list[tuple[float, float]]) -> None:
    assert "nan" not in line_chart("x", [Series("x", points)], "a", "b").lower()


def test_nothing_to_draw_is_said() -> None:
    assert "nothing was recorded" in line_chart("Loss", [Series("loss", [])], "step", "loss")
    assert "nothing was recorded" in stacked_bar("Account", [("step", 0.0, "step")], "s")


def test_marks_and_several_curves_have_a_legend() -> None:
    series = [Series("device 0", [(0, 1), (1, 2)]), Series("device 1", [(0, 2), (1, 1)])]
    drawn = line_chart("Power", series, "min", "W", marks=[Mark(0.5, "evaluation"), Mark(0.7, "checkpoint")])
    legend = re.search(r'<p class="legend">(.*?)</p>', drawn).group(1)
    assert re.findall(r"</svg> ([^<]+)<", legend) == ["device 0", "device 1"]
    assert "<b>C</b> checkpoint" in legend
    assert "<b>E</b> evaluation" in legend
    assert 'stroke-dasharray="7 3"' in drawn, "the second curve is dashed"


def test_a_bar_is_as_long_as_its_parts() -> None:
    drawn = stacked_bar("Account", [("step", 30.0, "step"), ("data wait", 10.0, "wait")], "s")
    widths = [float(one) for one in re.findall(r'<rect[^>]* width="([\d.]+)"', drawn)]
    assert widths == [570.0, 190.0]
    assert "data wait, 10.0 s, 25.0%" in drawn


def test_everything_is_escaped() -> None:
    drawn = line_chart(
        NASTY, [Series(NASTY, [(0, 1), (1, 2)])] * 2, NASTY, NASTY, level=(1.5, NASTY), marks=[Mark(0.5, NASTY)]
    )
    drawn += stacked_bar(NASTY, [(NASTY, 1.0, "step")], "s") + table([NASTY], [(number(1.0),)], NASTY)
    assert "<script" not in drawn
    assert "\"&'" not in drawn
