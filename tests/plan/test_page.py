"""The page of a plan: every coordinate of its curve, worked by hand, and its words escaped."""

from __future__ import annotations

import re
from types import SimpleNamespace

from ssd.plan import page as page_module
from ssd.plan.page import _curve


def one(accelerators: int, *minutes: float) -> SimpleNamespace:
    return SimpleNamespace(accelerators=accelerators, minutes=minutes or None)


def row(name: str, accelerators: int, *seconds: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, accelerators=accelerators, seconds=seconds)


PREDICTED = [one(1, 100, 1000, 10_000), one(10), one(100, 1, 10, 100)]
PUBLISHED = [row("<a>", 10, 60, 6000, 240), row("silent", 10)]
"""The published run takes 2100 s on average: 35 minutes."""


def test_every_coordinate_of_the_curve() -> None:
    """Both axes are logarithmic: 1 to 100 from x = 60 to 660, and 1 to 10,000 minutes from y = 340 up to 60."""
    drawn = _curve(PREDICTED, PUBLISHED)
    assert "<polygon points='60.0,200.0 660.0,340.0 660.0,200.0 60.0,60.0' fill='#0072b2'" in drawn
    assert "<polyline points='60.0,130.0 660.0,270.0' fill='none'" in drawn
    # 35 minutes are 10 to the 1.544: 340 - 0.386 x 280.
    assert re.findall(r"<circle cx='(.*?)' cy='(.*?)'.*?><title>(.*?)</title>", drawn) == [
        ("360.0", "231.9", "&lt;a&gt;: 35.0 min")
    ]
    assert re.findall(r"<text x=([\d.]+) y=([\d.]+) text-anchor=middle>([^<]+)<", drawn) == [
        ("60.0", "358", "1"),
        ("60.0", "122.0", "1000.0"),
        ("660.0", "358", "100"),
        ("660.0", "262.0", "10.0"),
        ("360.0", "388", "accelerators"),
    ]


def test_the_curve_fills_the_axes_wherever_it_begins() -> None:
    """From 10 accelerators and 10 minutes on it has the places that it has from 1 on."""
    later = [one(2, 10, 100, 1000), one(8, 5, 50, 500)]
    drawn = _curve(later, [])
    # 1000 / 5 minutes is the height: 100 and 50 minutes lie at log 20 and log 10 of log 200.
    assert "<polyline points='60.0,181.7 660.0,218.3' fill='none'" in drawn


def test_a_single_point_is_drawn_in_the_corner() -> None:
    assert "<polyline points='60.0,340.0'" in _curve([one(8, 5, 5, 5)], [])


def test_without_minutes_there_is_no_curve() -> None:
    assert _curve([one(8)], PUBLISHED) == "<p>No curve: the epochs to the target are unknown.</p>"


def test_notes_are_listed_once_and_escaped(monkeypatch) -> None:
    monkeypatch.setattr(page_module, "plan_cells", lambda predictions: [[["<1>"]], [["2"]], [["3"]]])
    monkeypatch.setattr(page_module, "figures_of", lambda source, predictions: {"epochs": "of <you>"})
    predictions = [
        SimpleNamespace(**vars(made), notes=notes)
        for made, notes in zip(PREDICTED, (["<b>"], ["<b>", "<b>"], []), strict=True)
    ]
    text = page_module.page(None, predictions, PUBLISHED)
    assert "<ul><li>1 accelerator: &lt;b&gt;</li><li>10 accelerators: &lt;b&gt;</li></ul>" in text
    assert "<h2>Where each figure comes from</h2><ul><li>epochs: of &lt;you&gt;</li></ul>" in text
    assert "<tr><td>&lt;1&gt;</td></tr></table><table>" in text
    assert text.count("<th scope=col>") == sum(map(len, page_module.COLUMNS))
