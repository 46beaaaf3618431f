"""Command lines of any verb and any words: they are read, or they end with the one documented error."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd import cli
from ssd.config import resolve
from ssd.errors import EXIT_BAD_CONFIG
from ssd.verbs.table import VERBS

WORDS = st.one_of(
    st.sampled_from([f"--{flag}" for verb in VERBS.values() for flag in verb.flags]),
    st.sampled_from(
        ["--seed", "--no-nhwc", "--help", "--", "=", "-1", "7", "1e308", "nan", "a", "", "loss", "x" * 300]
    ),
    st.text(max_size=6),
)


def test_what_a_verb_cannot_do_without_is_required() -> None:
    required = {
        verb: {name for name, flag in declared.flags.items() if flag.required} for verb, declared in VERBS.items()
    }
    assert {verb: names for verb, names in required.items() if names} == {
        "evaluate": {"checkpoint"},
        "detect": {"checkpoint", "images"},
    }


def test_what_may_be_given_again_keeps_all_that_it_is_given() -> None:
    again = {(verb, name) for verb, declared in VERBS.items() for name, flag in declared.flags.items() if flag.again}
    assert again == {("vendors check", "op"), ("vendors check", "means"), ("package", "field")}


def resolve_alone(argv: list[str], own: object) -> int:
    resolve(argv)
    return 0


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(VERBS)),
    st.lists(st.one_of(WORDS, st.builds("{}={}".format, WORDS, WORDS)), max_size=5),
)
@pytest.mark.slow
def test_any_command_line_of_any_verb_is_read_or_is_one_documented_error(verb: str, words: list[str]) -> None:
    """No verb does its work here: what is tried is everything before it."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        for name, declared in VERBS.items():
            patch.setitem(cli.RUN, name, resolve_alone if declared.keys else lambda argv, own: 0)
        code = cli.main([*verb.split(), *words])
    assert code in (0, EXIT_BAD_CONFIG)
    assert code == 0 or said.getvalue().startswith("error: ")
    assert len(said.getvalue()) < 30_000
