"""Command lines of any words: a Config, or the one error that names a flag or a word; never anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.config import Config, flags, resolve
from ssd.config import files as config_files
from ssd.config.flags import parse_flags, refuse_unknown
from ssd.errors import ConfigError

KEYS = list(Config.model_fields)
KINDS = {"count": int, "folder": Path, "fast": bool, "epochs": tuple[int, ...]}
ALLOWED = {name: name for name in KINDS}


def refused(*argv: str) -> str:
    with pytest.raises(ConfigError) as refusal:
        resolve(["--no-pretrained", *argv], {})
    return str(refusal.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--precision=--name"], "--precision --name: takes fp32|bf16|fp16."),
        (["--precision=--name", "--name", "cpu"], "--precision --name: takes fp32|bf16|fp16."),
        (["--ddp=--nhwc=--name"], "--ddp --nhwc=--name: takes torch|apex."),
        (["--seed=--seed"], "--seed --seed: takes int, at least 0, below 4294967296."),
        (["--seed", "1", "--seed", "abc"], "--seed abc: takes int, at least 0, below 4294967296."),
        (["--seed", "--name", "cpu"], "--seed (no value): takes int, at least 0, below 4294967296."),
        (["--momentum="], "--momentum (no value): takes number, at least 0, below 1."),
    ],
)
def test_the_flag_that_cannot_be_read_is_named_with_its_words(argv: list[str], message: str) -> None:
    assert refused(*argv) == message


def test_values_and_the_words_that_belong_to_no_flag() -> None:
    words = ["a", "--count", "3", "--no-fast", "--other", "b", "--epochs", "1", "2", "--folder=/x"]
    values, rest = parse_flags(words, KINDS, ALLOWED)
    assert values == {"count": 3, "fast": False, "epochs": (1, 2), "folder": Path("/x")}
    assert rest == ["a", "--other", "b"]


@pytest.mark.parametrize(
    ("words", "values", "rest"),
    [
        (["--no-acme.fuse"], {"acme.fuse": False}, []),
        (["--acme.fuse=False"], {"acme.fuse": False}, []),
        (["--no-acme.rows", "--no-count", "3"], {}, ["--no-acme.rows", "--no-count", "3"]),
        (["--fast", "TRUE", "x"], {"fast": True}, ["x"]),
        (["--fast", "no"], {"fast": True}, ["no"]),
        (["--fast", "--count", "2"], {"fast": True, "count": 2}, []),
    ],
)
def test_switches(words: list[str], values: dict[str, Any], rest: list[str]) -> None:
    kinds = {**KINDS, "acme.fuse": bool, "acme.rows": int}
    assert parse_flags(words, kinds, dict.fromkeys(kinds, "")) == (values, rest)


def test_what_only_all_words_together_make_unreadable_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_tyro(words: list[str], kinds: dict[str, Any]) -> None:
        if len(words) > 2:
            raise ValueError("too many words")

    monkeypatch.setattr(flags, "_by_tyro", by_tyro)
    with pytest.raises(ConfigError, match=r"^the command line cannot be read: too many words$"):
        parse_flags(["--count", "3", "--fast"], KINDS, ALLOWED)
    with pytest.raises(ConfigError, match=r"^--fast maybe: takes true or false.$"):
        parse_flags(["--fast=maybe"], KINDS, ALLOWED)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (["--cuont=3", "--x"], "unknown key --cuont. Did you mean '--count'? --help lists all."),
        (["--nothing"], "unknown key --nothing. Ask for it. --help lists all."),
        (["word", "--cuont"], "'word' belongs to no key: values follow theirs, as in --key value."),
    ],
)
def test_the_first_word_of_no_flag_is_named(rest: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        refuse_unknown(rest, KINDS, lambda flag: " Ask for it.")
    assert str(refusal.value) == message
    refuse_unknown([], KINDS)


@pytest.mark.parametrize("word", ["--" + "x" * 5000, "x" * 5000])
def test_a_long_word_is_shown_in_part(word: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        refuse_unknown([word], KINDS)
    assert len(str(refusal.value)) < 500


WORDS = st.one_of(
    st.sampled_from([f"--{key}" for key in KEYS] + [f"--no-{key}" for key in KEYS]),
    st.sampled_from(["-1", "0", "1", "1e308", "nan", "true", "false", "None", "fp32", "cpu", "smoke"]),
    st.sampled_from(["--", "-", "=", "", "--=", "--no-"]),
    st.text(max_size=8),
)
FLAGS = st.one_of(
    WORDS,
    st.builds("{}={}".format, WORDS, WORDS),
    st.builds(lambda key, value: f"--{key.replace('_', '-')}={value}", st.sampled_from(KEYS), st.text(max_size=8)),
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(FLAGS, max_size=5))
def test_any_command_line_is_a_config_or_one_documented_error(argv: list[str]) -> None:
    said = "a config"
    try:
        resolve(argv, {})
    except ConfigError as error:
        said = str(error)
    assert 0 < len(said) < 5000


VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=20), st.lists(st.integers(), max_size=3), st.none()
)


def as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(one):08X}" for one in value) + '"'
    return "[]" if value is None else str(value)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, "extends", "unknown"]), VALUES, max_size=3))
def test_any_file_is_a_config_or_one_documented_error(tmp_path_factory: Any, values: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "C.toml").write_text("".join(f"{key} = {as_toml(value)}\n" for key, value in values.items()), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_files, "BASE_CONFIGS", folder)
        said = "a config"
        try:
            resolve(["--config", "C"], {})
        except ConfigError as error:
            said = str(error)
    assert 0 < len(said) < 5000


@pytest.mark.parametrize(
    "text",
    [
        "seed = 1" + "0" * 5000,
        "seed = " + "[" * 20_000 + "]" * 20_000,
        "seed = " + "[" * 250 + "]" * 250,
        'submitter = "\\u0000"',
        "seed = 3\nseed = 4",
        "seed",
    ],
)
def test_a_strange_file_is_refused_by_name(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "C.toml").write_text(text)
    monkeypatch.setattr(config_files, "BASE_CONFIGS", tmp_path)
    with pytest.raises(ConfigError, match=r"C\.toml") as refusal:
        resolve(["--config", "C"], {})
    assert len(str(refusal.value)) < 1000
