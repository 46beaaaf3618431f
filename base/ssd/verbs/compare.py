"""The verb `compare`: runs and published systems side by side; or two runs that must be the same."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ssd.config.help import console
from ssd.console import SafeConsole
from ssd.errors import EXIT_DIFFERENT, EXIT_REACHED, ConfigError
from ssd.report.side_by_side import SAID, Section, as_json, as_page, sections
from ssd.verbs.equal import held_to_each_other
from ssd.verbs.sides import read_sides

__all__ = ["compare_command"]


def compare_command(
    words: Sequence[str],
    *,
    assert_equal: bool = False,
    tolerance: float | None = None,
    html: Path | None = None,
    json: bool = False,
) -> int:
    """`compare A B ...`: the tables, or JSON; html: a file for a page of the same tables. Exit code 0.

    assert_equal: hold two runs to each other instead; EXIT_DIFFERENT where they differ by more than the tolerance.
    """
    if assert_equal:
        return _held(words, tolerance or 0.0, html, json)
    if tolerance is not None:
        raise ConfigError("--tolerance goes with --assert-equal.")
    sides = read_sides(words)
    if html is not None:
        html.write_text(as_page(sides), encoding="utf-8")
    if json:
        sys.stdout.write(as_json(sides))
        return EXIT_REACHED
    out = console()
    for one in sections(sides):
        out.print(_table(one))
        out.print()
    out.print(escape(SAID))
    if html is not None:
        out.print(escape(f"the page: {html}"), soft_wrap=True)
    return EXIT_REACHED


def _table(section: Section) -> Table:
    table = Table(title=escape(section.title), title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in section.headings:
        table.add_column(heading, overflow="fold")
    for row in section.rows:
        table.add_row(*map(escape, row))
    return table


def _held(words: Sequence[str], tolerance: float, html: Path | None, json: bool) -> int:
    if len(words) != 2:
        raise ConfigError(f"--assert-equal takes two runs, and got {len(words)}.")
    if html is not None:
        raise ConfigError("--assert-equal prints sentences or --json: take --html out.")
    verdict = held_to_each_other(Path(words[0]), Path(words[1]), tolerance)
    if json:
        sys.stdout.write(verdict.as_json())
    else:
        out = SafeConsole(file=sys.stdout, highlight=False)
        for line in verdict.lines():
            out.print(line, soft_wrap=True, markup=False)
    return EXIT_REACHED if verdict.equal else EXIT_DIFFERENT
