"""Where text for people goes: nothing in it is obeyed by the terminal.

Names of files, categories and systems come from outside. An escape byte in one of them could move the cursor, colour
the screen or hide a line. Every table and message is printed through `SafeConsole`, and every log line and error
through `ssd.text.visible`.
"""

from __future__ import annotations

import copy
import logging
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssd.text import visible

__all__ = ["SafeConsole", "StderrHandler", "VisibleFormatter", "console", "is_quiet", "set_up_logging"]


class SafeConsole(Console):
    """rich's Console, which shows control characters of the text it is given in place of obeying them.

    Markup, such as `[bold]`, works as in rich; `rich.markup.escape` is for names that may contain it. What is written
    to a pipe or a file has no spaces at the ends of its lines, with which rich fills a table up.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's; but the title of a table is a line of its own, where rich would fold it to the table's width."""
        if len(objects) == 1 and isinstance(objects[0], Table) and (title := objects[0].title):
            table = copy.copy(objects[0])
            table.title = None
            self.print(title, style="italic", soft_wrap=True)
            objects = (table,)
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as said:
            super().print(*objects, **options)
        self.file.write("\n".join(line.rstrip(" ") for line in said.get().split("\n")))

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string of a message, a table's cell or a title comes through here."""
        return super().render_str(visible(text), **options)


def console(width: int = 160) -> SafeConsole:
    """Standard output, as wide as its terminal; `width` characters where it is none, so that a row stays on a line."""
    return SafeConsole(file=sys.stdout, width=None if sys.stdout.isatty() else width, highlight=False)


class VisibleFormatter(logging.Formatter):
    """Log lines with their control characters shown."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or with a traceback the lines, of a record."""
        return visible(super().format(record))


class StderrHandler(logging.Handler):
    """Log lines on what sys.stderr is at the moment, which a progress bar redirects."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record."""
        sys.stderr.write(f"{self.format(record)}\n")
        sys.stderr.flush()


def set_up_logging(quiet: bool) -> None:
    """Show log lines on standard error: INFO and above, or where `quiet` warnings and above.

    A program that has set its logging up itself, as a test runner has, keeps it.
    """
    handler = StderrHandler(logging.WARNING if quiet else logging.INFO)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def is_quiet() -> bool:
    """Whether `set_up_logging` was told to be quiet: then nothing is shown but warnings, errors and answers."""
    return any(isinstance(one, StderrHandler) and one.level > logging.INFO for one in logging.getLogger().handlers)
