"""Text from outside on a terminal: shown, not obeyed, and never an error of encoding."""

from __future__ import annotations

import io
import logging

from rich.table import Table

from ssd.console import SafeConsole, VisibleFormatter

EVIL = "a\x1b[2J\x9b31m\rb\x07\u202e"
SHOWN = r"a\x1b[2J\x9b31m\rb\x07\u202e"


def printed(what: object) -> str:
    file = io.StringIO()
    SafeConsole(file=file, width=120).print(what)
    return file.getvalue()


def test_a_message_is_shown() -> None:
    assert printed(EVIL) == SHOWN + "\n"


def test_cells_headers_and_titles_of_a_table_are_shown() -> None:
    table = Table(title=f"title {EVIL}", caption=f"caption {EVIL}")
    table.add_column(f"header {EVIL}")
    table.add_row(f"cell {EVIL}")
    text = printed(table)
    assert [f"{part} {SHOWN}" in text for part in ("title", "caption", "header", "cell")] == [True] * 4
    assert all(one.isprintable() for one in text.replace("\n", ""))


def test_markup_still_works() -> None:
    file = io.StringIO()
    SafeConsole(file=file, force_terminal=True, color_system="standard").print("[bold]x[/bold]")
    assert file.getvalue() == "\x1b[1mx\x1b[0m\n"


def test_a_log_line_is_shown() -> None:
    record = logging.LogRecord("ssd", logging.INFO, "a.py", 1, "left out: %s\nnext", (EVIL,), None)
    assert VisibleFormatter("%(message)s").format(record) == f"left out: {SHOWN}\nnext"
