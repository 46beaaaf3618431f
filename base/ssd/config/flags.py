"""Turns flags into typed values, by tyro. Which flags exist is the caller's knowledge.

tyro accepts `--a_b` and `--a-b` for the same flag, `--key value` and `--key=value`, `--switch` and `--no-switch`. It
gets a TypedDict in which every key is optional. So it returns only the flags that are in argv, and it stays known where
a value came from. For a mistake tyro prints a page in a box. In its place each flag is then read by itself here, and
the message names the first flag that fails.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from ssd.config.nearest import did_you_mean
from ssd.errors import ConfigError
from ssd.text import shortened

__all__ = ["parse_flags", "refuse_unknown"]


def parse_flags(
    argv: Sequence[str], kinds: Mapping[str, Any], allowed: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of the flags in argv, and the words that belong to no flag.

    kinds: the type of each flag, by its name. allowed: what each flag accepts, as text, for the message of the
    ConfigError that a wrong value raises.
    """
    plain = _plain_switches(argv, kinds)
    try:
        return _by_tyro(plain, kinds)
    except ValueError as error:
        for flag, *words in _flags_with_words(plain):
            name = _name(flag)
            if name in kinds and not _is_read([flag, *words], {name: kinds[name]}):
                given = " ".join([flag.partition("=")[2], *words] if "=" in flag else words)
                raise ConfigError(f"--{name} {shortened(given) or '(no value)'}: takes {allowed[name]}.") from None
        raise ConfigError(f"the command line cannot be read: {error}") from None


def refuse_unknown(rest: Sequence[str], known: Iterable[str], hint: Callable[[str], str] = lambda flag: "") -> None:
    """Raise ConfigError for the first word that belongs to no flag. It names the nearest of the known flags.

    hint: a sentence about a flag that is near to none.
    """
    if not rest:
        return
    flag = rest[0].partition("=")[0]
    if not flag.startswith("--"):
        raise ConfigError(f"{shortened(rest[0])!r} belongs to no key: values follow theirs, as in --key value.")
    nearest = did_you_mean(flag, [f"--{key}" for key in known]) or hint(flag)
    raise ConfigError(f"unknown key {shortened(flag)}.{nearest} --help lists all.")


def _by_tyro(argv: Sequence[str], kinds: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`parse_flags` for words whose switches are in tyro's form. Raises ValueError with tyro's text."""
    import tyro  # imported here because it takes 0.1 s, and reading a written config does not need it

    fields = dict(kinds)
    flags = TypedDict("flags", fields, total=False)  # type: ignore[misc]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            values, rest = tyro.cli(flags, args=list(argv), return_unknown_args=True, add_help=False)
    except SystemExit:
        raise ValueError(" ".join(said.getvalue().split())) from None
    return dict(values), rest


def _is_read(words: Sequence[str], kinds: Mapping[str, Any]) -> bool:
    try:
        _by_tyro(words, kinds)
    except ValueError:
        return False
    return True


def _flags_with_words(argv: Sequence[str]) -> list[list[str]]:
    """Each flag of argv with the words that follow it. Words before the first flag are left out."""
    found: list[list[str]] = []
    for token in argv:
        if token.startswith("--"):
            found.append([token])
        elif found:
            found[-1].append(token)
    return found


def _plain_switches(argv: Sequence[str], kinds: Mapping[str, Any]) -> list[str]:
    """argv with true-or-false flags in tyro's form: `--a true` becomes `--a`, and `--a=false` becomes `--no-a`.

    A vendor's `--no-v.a` becomes `--v.no-a`.
    """
    plain: list[str] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        flag, equals, value = token.partition("=")
        name = _name(flag)
        if name.startswith("no_") and kinds.get(name[3:]) is bool and not equals:
            name, value, equals = name[3:], "false", "="
        if kinds.get(name) is not bool:
            plain.append(token)
            continue
        if not equals and rest and rest[0].lower() in ("true", "false"):
            value = rest.pop(0)
        if value.lower() not in ("", "true", "false"):
            raise ConfigError(f"--{name} {value}: takes true or false.")
        section, dot, key = name.rpartition(".")
        plain.append(f"--{section}{dot}no-{key}" if value.lower() == "false" else flag)
    return plain


def _name(flag: str) -> str:
    """The name in a flag: `--train-batch-size=4` gives `train_batch_size`. Other words are returned as they are."""
    return flag.partition("=")[0].removeprefix("--").replace("-", "_") if flag.startswith("--") else flag
