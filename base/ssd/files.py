"""Files that appear whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`.part, and rename that file to `path`. A reader sees the old file or the new one.

    Raises OSError where the file cannot be written. `path` is then as it was.
    """
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
