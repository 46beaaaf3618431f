"""Text for terminals: nothing in it is obeyed, and nothing is long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.text import counted, one_line, said_by, shortened, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 清华\nnext line", "Größe 清华\nnext line"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb\tc\0d", "a\\rb\\tc\\x00d"),
        ("\u202eabc", "\\u202eabc"),
        ("\udcff", "\\udcff"),
        ("\x9b", "\\x9b"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_what_is_visible_is_printable_and_stays_so(text: str) -> None:
    shown = visible(text)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert visible(shown) == shown
    shown.encode("utf-8")


def test_a_long_text_loses_its_middle() -> None:
    assert shortened("a" * 200) == "a" * 200
    short = shortened("a" * 1000 + "b" * 1000, 100)
    assert short == "a" * 47 + " ... " + "b" * 47


def test_a_name_with_a_line_end_stays_on_its_line() -> None:
    assert one_line("a\nb\x1b\r") == "a\\nb\\x1b\\r"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((1, "step"), "1 step"),
        ((0, "step"), "0 steps"),
        ((12_345, "step"), "12,345 steps"),
        ((1, "box", "boxes"), "1 box"),
        ((2, "box", "boxes"), "2 boxes"),
    ],
)
def test_counted_things(words: tuple, text: str) -> None:
    assert counted(*words) == text


def test_an_error_is_told_by_class_and_message_in_part() -> None:
    assert said_by(KeyError("seed")) == "KeyError: 'seed'"
    assert said_by(ValueError("x" * 5000)).startswith("ValueError: xxx")
    assert len(said_by(ValueError("x" * 5000))) < 250
