"""Text from files, file names and command lines, made safe and short for a terminal. Standard library alone."""

from __future__ import annotations

__all__ = ["one_line", "shortened", "visible"]


def visible(text: str) -> str:
    r"""`text` with each character that a terminal would obey shown as its escape, `\x1b` for one; line ends stay."""
    return "".join(one if one.isprintable() or one == "\n" else _escape(one) for one in text)


def one_line(text: str) -> str:
    """`visible` text on one line: its line ends are shown as well, as those of a file's name must be."""
    return visible(text).replace("\n", "\\n")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def shortened(text: str, most: int = 200) -> str:
    """`text`, with its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"
