"""Text for people: counted things, and what comes from files and command lines, made safe and short for a terminal."""

from __future__ import annotations

__all__ = ["counted", "one_line", "said_by", "shortened", "visible"]


def visible(text: str) -> str:
    r"""`text` with each character that a terminal would obey shown as its escape, `\x1b` for one; line ends stay."""
    return "".join(one if one.isprintable() or one == "\n" else _escape(one) for one in text)


def one_line(text: str) -> str:
    """`visible` text on one line: its line ends are shown as well, as those of a file's name must be."""
    return visible(text).replace("\n", "\\n")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def counted(number: int, one: str, many: str = "") -> str:
    """`1 step`, `2 steps`, `1,000 steps`, `0 boxes`. many: the plural, where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def shortened(text: str, most: int = 200) -> str:
    """`text`, with its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def said_by(error: BaseException) -> str:
    """The class and the message of an error: `KeyError: 'seed'`. A long message is shown in part."""
    return f"{type(error).__name__}: {shortened(str(error))}"
