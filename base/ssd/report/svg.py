"""Curves and bars as SVG inside of an HTML page: they print, need no script, and have their numbers in a table below.

Every text that comes in is escaped here. Colours are CSS variables of the page (ssd.report.style), so that they follow
its light or dark scheme; series differ by dashes too, for those who see no colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

__all__ = ["MOST_POINTS", "Mark", "Series", "line_chart", "number", "stacked_bar", "table", "thinned", "ticks"]

MOST_POINTS = 500
"""Points of a figure, of all its curves together: more than a screen shows."""
MOST_ROWS = 60
"""Rows of the tables below a figure, spread evenly; metrics.jsonl has all of them."""
WIDTH, HEIGHT = 760, 250
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 14, 40
LETTERS_APART = 20.0
"""Letters of two marks that are nearer than this are written as one word."""
DASHES = ("", "7 3", "2 3", "9 3 2 3")
_ids = count(1)


@dataclass(frozen=True)
class Series:
    """A curve. points: (x, y), by growing x. form: how its values stand in the table, a format specification."""

    name: str
    points: Sequence[tuple[float, float]]
    form: str = ".4g"


@dataclass(frozen=True)
class Mark:
    """Something that happened at x. kind: what it was, one of a few words, which gets a letter in the picture."""

    x: float
    kind: str


def number(value: float, form: str = ".4g") -> str:
    """A number for people that programs can read in full."""
    return f'<data value="{value!r}">{escape(format(value, form))}</data>'


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` of the points: the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    kept = {0, len(points) - 1}
    stretches = (most - 2) // 2
    for n in range(stretches):
        places = range(n * len(points) // stretches, (n + 1) * len(points) // stretches)
        kept |= {min(places, key=lambda place: points[place][1]), max(places, key=lambda place: points[place][1])}
    return [points[place] for place in sorted(kept)]


def ticks(low: float, high: float, wanted: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from `low` to `high`. whole: whole numbers alone."""
    if not high > low:
        return [low]
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _scale(values: Iterable[float], start: float, end: float, *, from_zero: bool = False) -> _Scale:
    known = list(values)
    low, high = min(known), max(known)
    if from_zero:
        low = min(low, 0.0)
    if high - low < 1e-12 * max(abs(high), 1e-12):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return _Scale(low, high, start, end)


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    level: tuple[float, str] | None = None,
    marks: Sequence[Mark] = (),
    from_zero: bool = True,
) -> str:
    """A figure with curves, and the table of their values. level: a horizontal line and what it is.

    A figure without any point says so.
    """
    series = [one for one in series if one.points]
    if not series:
        return f'<p class="lacking">{escape(title)}: nothing was recorded.</p>'
    every = [point for one in series for point in one.points]
    xs = [x for x, _ in every] + [mark.x for mark in marks]
    across = _scale(xs, LEFT, WIDTH - RIGHT)
    up = _scale([y for _, y in every] + ([level[0]] if level else []), HEIGHT - BOTTOM, TOP, from_zero=from_zero)
    parts = [*_axes(across, up, x_label, y_label, whole=all(float(x).is_integer() for x, _ in every))]
    parts += _marks(marks, across)
    if level:
        y = up(level[0])
        parts.append(
            f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="level" x="{LEFT + 6}" y="{y - 5:.1f}">{escape(level[1])}</text>'
        )
    for place, one in enumerate(series):
        parts.append(_curve(place, one, across, up, MOST_POINTS // len(series)))
    return _figure(title, parts, series, x_label, marks, level)


def _marks(marks: Sequence[Mark], across: _Scale) -> Iterable[str]:
    """A line for each mark, and its letter above. Letters that would cover each other stand side by side."""
    together: list[tuple[float, str]] = []
    for mark in sorted(marks, key=lambda one: one.x):
        x, letter = across(mark.x), mark.kind[:1].upper()
        yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        if together and x - together[-1][0] < LETTERS_APART:
            first, letters = together[-1]
            together[-1] = (first, letters if letter in letters else letters + letter)
        else:
            together.append((x, letter))
    for x, letters in together:
        yield f'<text class="mark" x="{x:.1f}" y="{TOP - 3}" text-anchor="middle">{escape(letters)}</text>'


def _axes(across: _Scale, up: _Scale, x_label: str, y_label: str, *, whole: bool) -> Iterable[str]:
    for value in ticks(up.low, up.high):
        y = up(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>'
    for value in ticks(across.low, across.high, 8, whole=whole):
        x = across(value)
        yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{value:.6g}</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>'
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield (f'<text transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')


def _curve(place: int, series: Series, across: _Scale, up: _Scale, most: int) -> str:
    points = [(across(x), up(y)) for x, y in thinned(series.points, most)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = f' stroke-dasharray="{DASHES[place % 4]}"' if DASHES[place % 4] else ""
    dots = "".join(f'<circle class="c{place % 4}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    return f'<polyline class="c{place % 4}" points="{path}"{dash}/>' + (dots if len(points) <= 40 else "")


def _figure(
    title: str,
    parts: Iterable[str],
    series: Sequence[Series],
    x_label: str,
    marks: Sequence[Mark],
    level: tuple[float, str] | None,
) -> str:
    name = f"chart{next(_ids)}"
    kinds = sorted({mark.kind for mark in marks})
    legend = [
        f'<span><svg class="key" viewBox="0 0 26 8" aria-hidden="true"><line class="c{n % 4}" x2="26" y1="4" y2="4"'
        f' stroke-dasharray="{DASHES[n % 4]}"/></svg> {escape(one.name)}</span>'
        for n, one in enumerate(series)
        if len(series) > 1
    ] + [f"<span><b>{escape(kind[:1].upper())}</b> {escape(kind)}</span>" for kind in kinds]
    said = "; ".join(
        f"{one.name}: {len(one.points)} values from {one.points[0][1]:.4g} to {one.points[-1][1]:.4g}, least "
        f"{min(y for _, y in one.points):.4g}, most {max(y for _, y in one.points):.4g}"
        for one in series
    )
    said += f". {level[1]}: {level[0]:g}" if level else ""
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}t {name}d">'
        f'<title id="{name}t">{escape(title)}</title><desc id="{name}d">{escape(said)}</desc>{"".join(parts)}</svg>'
        + (f'<p class="legend">{" ".join(legend)}</p>' if legend else "")
        + _values(title, series, x_label)
        + "</figure>"
    )


def _values(title: str, series: Sequence[Series], x_label: str) -> str:
    """The table below a curve, closed until it is asked for."""
    tables = []
    for one in series:
        stride = -(-len(one.points) * len(series) // MOST_ROWS)
        shown = [*one.points[:-1:stride], one.points[-1]]
        every = "" if stride == 1 else f", each {stride}th of {len(one.points)}"
        rows = [(number(x, ".6g"), number(y, one.form)) for x, y in shown]
        tables.append(table((x_label, one.name + every), rows, f"{title}: {one.name}"))
    return f"<details><summary>Values of this figure</summary>{''.join(tables)}</details>"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], label: str, *, words: int = 0, kind: str = "scroll"
) -> str:
    """A table that scrolls by itself. heads: texts. rows: cells as HTML. words: how many columns are text.

    kind: "scroll", or "scroll all" for a table that is shown to its end.
    """
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    lines = []
    for cells in rows:
        shown = "".join(f"<td{'' if n < words else ' class=n'}>{cell}</td>" for n, cell in enumerate(cells))
        lines.append(f"<tr>{shown}</tr>")
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(label)}"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def stacked_bar(title: str, parts: Sequence[tuple[str, float, str]], unit: str) -> str:
    """One bar of disjoint parts, (name, size, CSS class); a part that is wide enough has its name in it."""
    whole = sum(size for _, size, _ in parts)
    if whole <= 0:
        return f'<p class="lacking">{escape(title)}: nothing was recorded.</p>'
    at, drawn = 0.0, []
    for name, size, kind in parts:
        width = size / whole * WIDTH
        text = f"{name}, {size:.1f} {unit}, {size / whole:.1%}"
        drawn.append(
            f'<g><title>{escape(text)}</title><rect class="part {escape(kind)}" x="{at:.2f}" y="0" '
            f'width="{width:.2f}" height="46"/>'
            + (
                f'<text class="on {escape(kind)}" x="{at + width / 2:.1f}" y="20" text-anchor="middle">{escape(name)}'
                f'<tspan x="{at + width / 2:.1f}" dy="16">{size / whole:.0%}</tspan></text>'
                if width > 7.2 * len(name) + 6
                else ""
            )
            + "</g>"
        )
        at += width
    return (
        f'<svg class="bar" viewBox="0 0 {WIDTH} 46" role="img" aria-label="{escape(title)}: the table below has its '
        f'numbers">{"".join(drawn)}</svg>'
    )
