"""How a verb's flags and words are read, whatever the verb."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from ssd.config.verb import Flag, Verb, Words, read, verb_of
from ssd.errors import ConfigError
from ssd.verbs.table import VERBS

VERB = Verb(
    "does it",
    {
        "count": Flag(int, "how many", 3, least=1, most=9),
        "share": Flag(float, "how much", 0.5, least=0, most=1),
        "folder": Flag(Path, "where"),
        "files": Flag(tuple[Path, ...], "which", ()),
        "fast": Flag(bool, "hurry"),
        "field": Flag(str, "NAME=VALUE", again=True),
    },
    Words("RUN", "a run", least=1, most=2),
)
DEFAULTS = {"count": 3, "share": 0.5, "folder": None, "files": (), "fast": False, "field": []}


@pytest.mark.parametrize(
    ("argv", "words", "given"),
    [
        (["a"], ["a"], {}),
        (["a", "b", "--count", "4"], ["a", "b"], {"count": 4}),
        (["--fast", "a", "--share=1"], ["a"], {"fast": True, "share": 1.0}),
        (["--field", "x=1", "a", "--field=y=2"], ["a"], {"field": ["x=1", "y=2"]}),
        (["a", "--files", "b", "c"], ["a"], {"files": (Path("b"), Path("c"))}),
        (["a", "--no-fast", "--folder", "/x"], ["a"], {"folder": Path("/x")}),
    ],
)
def test_flags_and_words(argv: list[str], words: list[str], given: dict[str, Any]) -> None:
    assert read(VERB, argv) == (words, DEFAULTS | given)


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert read(VERB, ["a", "--folder=~/x"])[1]["folder"] == Path("/home/somebody/x")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "RUN is missing: a run. --help shows the command line."),
        (["a", "b", "c"], "'c' belongs to no key: values follow theirs, as in --key value."),
        (["a", "--cuont", "3"], "unknown key --cuont. Did you mean '--count'? --help lists all."),
        (["a", "--count", "0"], "--count 0: takes int, at least 1, at most 9."),
        (["a", "--count", "10"], "--count 10: takes int, at least 1, at most 9."),
        (["a", "--count", "x"], "--count x: takes int, at least 1, at most 9."),
        (["a", "--share", "nan"], "--share nan: takes number, at least 0, at most 1."),
        (["a", "--share", "1e308"], "--share 1e+308: takes number, at least 0, at most 1."),
        (["a", "--field"], "--field (no value): takes text."),
        (["a", "--fast=maybe"], "--fast maybe: takes true or false."),
        (["a", "--folder", "y" * 256], f"--folder {'y' * 97} ... {'y' * 97}: a name in a path has at most 255 bytes."),
        (["a", "--files", "b", "c\0"], "--files c\0: a path cannot hold the character NUL."),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(VERB, argv)
    assert str(refusal.value) == message


VERBS_OF_TWO = {"list": VERB, "list new": VERB, "list check": VERB, "show": VERB}


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["list"], "list"),
        (["list", "--json"], "list"),
        (["list", "new", "a"], "list new"),
        (["show", "new"], "show"),
    ],
)
def test_the_verb_of_a_command_line(argv: list[str], name: str) -> None:
    assert verb_of(argv, VERBS_OF_TWO) == name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "old"], "list old: say `list` alone, or `list new`, `list check`."),
        (["shwo"], "no verb is called 'shwo'. Did you mean 'show'? Verbs: list, list new, list check, show."),
    ],
)
def test_what_is_no_verb(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        verb_of(argv, VERBS_OF_TWO)
    assert str(refusal.value) == message


def test_words_in_the_usage_line() -> None:
    assert Words("NAME", "a name", most=1).usage == "NAME"
    assert Words("RUN", "a run").usage == "RUN..."
    assert Words("RUN", "a run", most=2).usage == "RUN..."
    assert Words("RUN", "a run", least=0).usage == "[RUN...]"


def test_a_number_has_no_bound_unless_it_is_given_one() -> None:
    verb = Verb("does it", {"rate": Flag(float, "how fast")})
    assert read(verb, ["--rate", "-1e300"]) == ([], {"rate": -1e300})
    assert read(verb, []) == ([], {"rate": None})


def test_words_may_be_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    verb = Verb("does it", words=Words("FILE", "a file", Path))
    assert read(verb, ["a", "~/b"]) == ([Path("a"), Path("/home/somebody/b")], {})
    with pytest.raises(ConfigError, match=r"FILE /x.*: a path has at most 3840 bytes"):
        read(verb, ["/x" * 2000])


def test_a_flag_that_must_be_given() -> None:
    verb = Verb("does it", {"file": Flag(Path, "the file", required=True)}, keys=("seed",))
    with pytest.raises(ConfigError, match=r"--file is missing: the file\."):
        read(verb, ["--seed", "3"])
    assert read(verb, ["--seed", "3", "--file", "f"]) == (["--seed", "3"], {"file": Path("f")})


@pytest.mark.parametrize("verb", VERBS)
def test_every_number_of_a_verb_has_bounds(verb: str) -> None:
    numbers = [flag for flag in VERBS[verb].flags.values() if flag.kind in (int, float)]
    assert [flag for flag in numbers if math.inf in (-flag.least, flag.most)] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_says_what_it_is_and_no_flag_hides_a_key(verb: str) -> None:
    declared = VERBS[verb]
    assert declared.summary
    assert [name for name in declared.flags if name in declared.keys] == []
    assert not (declared.words and declared.keys)
    for name, flag in declared.flags.items():
        assert flag.meaning, name
        assert flag.allowed, name
        assert not (get_origin(flag.kind) is tuple and flag.again), name
        assert get_origin(flag.kind) is not tuple or get_args(flag.kind)[1] is ..., name
