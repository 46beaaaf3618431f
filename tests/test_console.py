"""Text from outside on a terminal: shown, not obeyed, and never an error of encoding."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.table import Table

from ssd.console import SafeConsole, StderrHandler, VisibleFormatter, console, is_quiet, set_up_logging

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


def test_a_title_is_not_folded_to_its_table_and_a_pipe_gets_no_padding() -> None:
    table = Table(title="a title that is longer than its table of two narrow columns", title_justify="left", box=None)
    table.add_column("a")
    table.add_column("b")
    table.add_row("long cell", "x")
    table.add_row("y", "")
    text = printed(table)
    assert text.splitlines()[0] == str(table.title)
    assert [line for line in text.splitlines() if line.endswith(" ")] == []
    assert text.splitlines()[-1].strip() == "y"
    table.title = "wider than the console " * 20
    assert printed(table).splitlines()[0].rstrip() == table.title.rstrip()
    assert printed(table).count("wider") == 20, "and once alone"


@pytest.mark.parametrize(
    ("handler", "quiet"),
    [(StderrHandler(logging.WARNING), True), (StderrHandler(logging.INFO), False), (logging.Handler(50), False)],
)
def test_quiet_is_the_level_of_our_handler(handler: logging.Handler, quiet: bool) -> None:
    assert not is_quiet()
    logging.getLogger().addHandler(handler)
    try:
        assert is_quiet() == quiet
    finally:
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(("quiet", "said"), [(False, ["a\\x1bb", "c"]), (True, ["c"])])
def test_log_lines_stand_alone_and_a_quiet_command_shows_warnings(
    quiet: bool, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    set_up_logging(quiet)
    root.debug("not shown")
    root.info("a\x1bb")
    root.warning("c")
    assert sys.stderr.getvalue().splitlines() == said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_console_is_as_wide_as_its_terminal_and_colours_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert (console().width, console(90).width, console().file) == (160, 90, sys.stdout)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert console().width == 50
    console().print("7 [bold]x[/bold]")
    assert sys.stdout.getvalue() == "7 \x1b[1mx\x1b[0m\n"


def test_log_lines_go_where_standard_error_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = StderrHandler()
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    handler.emit(logging.LogRecord("ssd", logging.INFO, "a.py", 1, "hello", (), None))
    assert said.getvalue() == "hello\n"
