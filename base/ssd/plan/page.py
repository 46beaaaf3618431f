"""Predictions as one HTML page that needs no network: a curve with its band, the published systems, and the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from ssd.plan.predict import Prediction
from ssd.plan.rows import Row
from ssd.plan.sources import Source
from ssd.plan.tables import COLUMNS, NOT_VERIFIED, TITLES, figures_of, plan_cells
from ssd.text import counted

__all__ = ["page"]

WIDTH, HEIGHT, MARGIN = 720, 400, 60
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse;font-size:.85rem}
caption{text-align:left;font-weight:600;padding-top:1rem}
td,th{padding:.2rem .5rem;text-align:right;border-bottom:1px solid #8888}
svg{width:100%;height:auto}.axis{stroke:currentColor}text{fill:currentColor;font-size:12px}"""


def page(source: Source, predictions: Sequence[Prediction], rows: Sequence[Row]) -> str:
    """The page as text: the curve of minutes against accelerators with its band, published systems, the table."""
    tables = "".join(
        f"<table><caption>{escape(title)}</caption>"
        f"<tr>{''.join(f'<th scope=col>{escape(heading)}</th>' for heading in headings)}</tr>"
        f"{''.join('<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>' for row in cells)}</table>"
        for title, headings, cells in zip(TITLES, COLUMNS, plan_cells(predictions), strict=True)
    )
    sources = "".join(
        f"<li>{escape(f'{name}: {words}')}</li>" for name, words in figures_of(source, predictions).items()
    )
    notes = sorted({f"{counted(one.accelerators, 'accelerator')}: {note}" for one in predictions for note in one.notes})
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'><title>Time to mAP 0.23</title>"
        f"<style>{STYLE}</style><h1>Time to mAP 0.23</h1>"
        f"{_curve(predictions, rows)}{tables}"
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"
        f"<h2>Where each figure comes from</h2><ul>{sources}</ul><p>{escape(NOT_VERIFIED)}</p></html>\n"
    )


def _curve(predictions: Sequence[Prediction], rows: Sequence[Row]) -> str:
    """The curve of minutes against accelerators, both logarithmic. The band has 8 of 10 runs; dots are published."""
    known = [(one.accelerators, one.minutes) for one in predictions if one.minutes]
    if not known:
        return "<p>No curve: the epochs to the target are unknown.</p>"
    dots = [(row.accelerators, sum(row.seconds) / len(row.seconds) / 60, row.name) for row in rows if row.seconds]
    wide = [math.log(count) for count in [*(count for count, _ in known), *(count for count, _, _ in dots)]]
    high = [math.log(value) for _, span in known for value in span] + [math.log(minutes) for _, minutes, _ in dots]

    def place(count: float, minutes: float) -> tuple[float, float]:
        across = (math.log(count) - min(wide)) / (max(wide) - min(wide) or 1)
        up = (math.log(minutes) - min(high)) / (max(high) - min(high) or 1)
        return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)

    def points(values: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(count, minutes) for count, minutes in values))

    band = points([(n, span[0]) for n, span in known] + [(n, span[2]) for n, span in reversed(known)])
    line = points([(n, span[1]) for n, span in known])
    marks = "".join(
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='#d55e00'>"
        f"<title>{escape(name)}: {minutes:.1f} min</title></circle>"
        for count, minutes, name in dots
        for x, y in [place(count, minutes)]
    )
    labels = "".join(
        f"<text x={place(n, span[1])[0]:.1f} y={HEIGHT - MARGIN + 18} text-anchor=middle>{n:,}</text>"
        f"<text x={place(n, span[1])[0]:.1f} y={place(n, span[1])[1] - 8:.1f} text-anchor=middle>{span[1]:.1f}</text>"
        for n, span in known
    )
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='Minutes against accelerators, as in the table'>"
        f"<polygon points='{band}' fill='#0072b2' fill-opacity='.2'/>"
        f"<polyline points='{line}' fill='none' stroke='#0072b2' "
        f"stroke-width='2'/>{marks}{labels}<text x={WIDTH / 2} y={HEIGHT - 12} text-anchor=middle>accelerators</text>"
        f"<text x=4 y=20>minutes (line and band: predicted; dots: published)</text></svg>"
    )
