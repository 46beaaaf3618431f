"""Curves and bars: thinned without losing a spike, with their numbers in full, and everything escaped."""

from __future__ import annotations

import re

import pytest

from ssd.report.svg import Mark, Series, _scale, line_chart, number, stacked_bar, table, thinned, ticks

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


def test_letters_of_marks_at_one_place_stand_side_by_side() -> None:
    ends = [Mark(0.0, "evaluation"), Mark(5.0, "evaluation"), Mark(9.95, "evaluation"), Mark(10.0, "checkpoint")]
    drawn = line_chart("Speed", [Series("images/s", [(0, 1), (10, 2)])], "min", "images/s", marks=[*ends, ends[-1]])
    assert re.findall(r'<text class="mark"[^>]*>(\w+)<', drawn) == ["E", "E", "EC"]
    assert drawn.count('<line class="mark"') == 5


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


# Whole pictures: x from 64 to 746, y from 210 up to 14

CHART = """
<line class="grid" x1="64" x2="746" y1="210.0" y2="210.0"/>
<text x="58" y="214.0" text-anchor="end">-2</text>
<line class="grid" x1="64" x2="746" y1="131.6" y2="131.6"/>
<text x="58" y="135.6" text-anchor="end">2</text>
<line class="grid" x1="64" x2="746" y1="53.2" y2="53.2"/>
<text x="58" y="57.2" text-anchor="end">6</text>
<line class="tick" x1="64.0" x2="64.0" y1="210" y2="214"/>
<text x="64.0" y="227" text-anchor="middle">0</text>
<line class="tick" x1="746.0" x2="746.0" y1="210" y2="214"/>
<text x="746.0" y="227" text-anchor="middle">10</text>
<line class="axis" x1="64" x2="746" y1="210" y2="210"/>
<text x="405" y="245" text-anchor="middle">epoch</text>
<text transform="translate(13 112) rotate(-90)" text-anchor="middle">loss</text>
<line class="mark" x1="234.5" x2="234.5" y1="14" y2="210"/>
<text class="mark" x="234.5" y="11" text-anchor="middle">E</text>
<line class="level" x1="64" x2="746" y1="53.2" y2="53.2"/>
<text class="level" x="70" y="48.2">target</text>
<polyline class="c0" points="64.0,170.8 405.0,92.4 746.0,14.0"/>
<circle class="c0" cx="64.0" cy="170.8" r="3"/>
<circle class="c0" cx="405.0" cy="92.4" r="3"/>
<circle class="c0" cx="746.0" cy="14.0" r="3"/>
<polyline class="c1" points="64.0,131.6 746.0,210.0" stroke-dasharray="7 3"/>
""".strip().splitlines()


def elements(drawn: str) -> list[str]:
    return drawn.replace("><", ">\n<").splitlines()


def test_every_coordinate_of_a_chart() -> None:
    """Values from -2 to 8 over 10 epochs: the target, 6, is at 210 - 0.8 x 196."""
    series = [Series("a", [(0, 0), (5, 4), (10, 8)]), Series("b", [(0, 2), (10, -2)], ".1f")]
    drawn = elements(line_chart("Loss", series, "epoch", "loss", level=(6, "target"), marks=[Mark(2.5, "evaluation")]))
    assert [line for line in CHART if line not in drawn] == []
    assert [sum(f"<{name} " in line for line in drawn) for name in ("circle", "polyline")] == [5, 2]
    assert sum('class="grid"' in line for line in drawn) == 6
    assert drawn.count("<tr>") == 2 + 5


def test_colours_and_dashes_begin_again_after_four_curves() -> None:
    drawn = line_chart("x", [Series(f"s{n}", [(0, n), (1, n)]) for n in range(6)], "a", "b")
    curves = re.findall(r'<polyline class="c(\d)"[^>]*?(?: stroke-dasharray="([^"]+)")?/>', drawn)
    dashes = ["", "7 3", "2 3", "9 3 2 3", "", "7 3"]
    assert curves == [(str(n % 4), dash) for n, dash in enumerate(dashes)]
    assert re.findall(r'<line class="c(\d)" x2="26" y1="4" y2="4" stroke-dasharray="([^"]*)"', drawn) == curves


def test_many_points_have_no_dots_and_one_curve_has_no_legend() -> None:
    for count, dots in ((40, 40), (41, 0)):
        drawn = line_chart("x", [Series("x", [(float(n), float(n)) for n in range(count)])], "a", "b")
        assert drawn.count("<circle") == dots
    assert "legend" not in drawn


def test_a_chart_that_need_not_begin_at_zero() -> None:
    def heights(*, from_zero: bool) -> list[str]:
        drawn = line_chart("x", [Series("x", [(1, 5), (2, 6)])], "a", "b", from_zero=from_zero)
        return re.search(r'points="[\d.]+,([\d.]+) [\d.]+,([\d.]+)"', drawn).groups()

    assert heights(from_zero=False) == ("210.0", "14.0")
    assert heights(from_zero=True) == ("46.7", "14.0")  # 210 - 5/6 x 196


@pytest.mark.parametrize(("value", "ticks_of_it"), [(4.0, ["2", "3", "4", "5", "6"]), (0.0, ["-0.4", "0", "0.4"])])
def test_a_flat_curve_lies_in_the_middle(value: float, ticks_of_it: list[str]) -> None:
    """The scale goes from half of the value to one and a half of it, and for 0 from -0.5 to 0.5."""
    drawn = line_chart("x", [Series("x", [(1, value), (2, value)])], "a", "b", from_zero=False)
    assert 'points="64.0,112.0 746.0,112.0"' in drawn
    marks = re.findall(r'text-anchor="end">([^<]+)<', drawn)
    assert set(ticks_of_it) <= set(marks)


def test_a_table_below_a_curve_has_at_most_60_rows() -> None:
    for count, said, rows in ((60, "", 60), (61, ", each 2th of 61", 31), (120, ", each 2th of 120", 61)):
        drawn = line_chart("x", [Series("x", [(float(n), 1.0) for n in range(count)])], "a", "b")
        assert f'<th scope="col">x{said}</th>' in drawn
        assert drawn.count("<tr>") == rows + 1


def test_a_table_s_columns_of_words_are_not_numbers() -> None:
    drawn = table(["a", "b"], [("x", "1"), ("y", "2")], "l", words=1, kind="scroll all")
    assert "<tr><td>x</td><td class=n>1</td></tr><tr><td>y</td><td class=n>2</td></tr>" in drawn
    assert drawn.startswith('<div class="scroll all" tabindex="0" role="region" aria-label="l"><table><thead><tr>')
    assert '<th scope="col">a</th><th scope="col">b</th></tr></thead><tbody><tr>' in drawn
    assert drawn.endswith("</tr></tbody></table></div>")


BAR = """
<g><title>step, 60.0 s, 78.9%</title><rect class="part step" x="0.00" y="0" width="600.00" height="46"/>
<text class="on step" x="300.0" y="20" text-anchor="middle">step<tspan x="300.0" dy="16">79%</tspan></text></g>
<g><title>data wait, 1.0 s, 1.3%</title><rect class="part wait" x="600.00" y="0" width="10.00" height="46"/></g>
<g><title>rest, 15.0 s, 19.7%</title><rect class="part x" x="610.00" y="0" width="150.00" height="46"/>
<text class="on x" x="685.0" y="20" text-anchor="middle">rest<tspan x="685.0" dy="16">20%</tspan></text></g></svg>
"""


def test_every_coordinate_of_a_bar() -> None:
    drawn = stacked_bar("Account", [("step", 60.0, "step"), ("data wait", 1.0, "wait"), ("rest", 15.0, "x")], "s")
    assert drawn.endswith(BAR.replace("\n", ""))


def test_ticks_that_fall_on_the_ends() -> None:
    assert ticks(0.3, 0.9, 3) == pytest.approx([0.4, 0.6, 0.8])
    assert ticks(0.2, 0.8, 3) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert ticks(2, 1) == [2]
    assert ticks(0, 5, 5) == [0, 1, 2, 3, 4, 5]
    assert ticks(0, 50, 5) == [0, 10, 20, 30, 40, 50]


def test_points_of_a_stretch_that_are_kept() -> None:
    """Of six points two of the ends, and the lowest and highest of both halves of four."""
    points = [(0, 5), (1, 9), (2, 1), (3, 4), (4, 7), (5, 3), (6, 6), (7, 4)]
    assert thinned(points, 8) == points
    assert thinned(points, 6) == [(0, 5), (1, 9), (2, 1), (4, 7), (5, 3), (7, 4)]


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([3.0, 3.0], 1.5, 4.5),
        ([0.0], -0.5, 0.5),
        ([1e12, 1e12 + 0.25], 0.5e12, 1.5e12 + 0.375),
        ([1e12, 1e12 + 2], 1e12, 1e12 + 2),
        ([-2e-30, 1e-30], -2e-30 - 1e-30, 1e-30 + 0.5e-30),
    ],
)
def test_values_that_are_as_good_as_one_lie_in_the_middle_of_their_axis(
    values: list[float], low: float, high: float
) -> None:
    scale = _scale(values, 0.0, 1.0)
    assert (scale.low, scale.high) == pytest.approx((low, high), rel=1e-15)
