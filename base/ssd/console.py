"""Where text for people goes: nothing in it is obeyed by the terminal.

Names of files, categories and systems come from outside. An escape byte in one of them could move the cursor, colour
the screen or hide a line. Every table and message is printed through `SafeConsole`, and every log line and error
through `ssd.text.visible`.
"""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.text import Text

from ssd.text import visible

__all__ = ["SafeConsole", "VisibleFormatter"]


class SafeConsole(Console):
    """rich's Console, which shows control characters of the text it is given in place of obeying them.

    Markup, such as `[bold]`, works as in rich; `rich.markup.escape` is for names that may contain it.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string of a message, a table's cell or a title comes through here."""
        return super().render_str(visible(text), **options)


class VisibleFormatter(logging.Formatter):
    """Log lines with their control characters shown."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or with a traceback the lines, of a record."""
        return visible(super().format(record))
