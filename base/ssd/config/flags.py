"""Flags to typed values, by tyro. Knows nothing of which flags there are.

tyro takes `--a_b` and `--a-b` alike, `--key value` and `--key=value`, `--switch` and `--no-switch`. A TypedDict whose
keys may all be absent makes it return the flags that stand in argv and no others: where a value came from is known.
What tyro says of a mistake is a page in a box. Here each flag is then read alone, and the first that fails is named.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from ssd.config.nearest import did_you_mean
from ssd.errors import ConfigError
from ssd.text import shortened

__all__ = ["parse_flags", "refuse_unknown"]


def parse_flags(
    argv: Sequence[str], kinds: Mapping[str, Any], allowed: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Values of the flags in argv that are among `kinds` (type by name), and the words that belong to none of them.

    allowed: what each flag takes, for the message of the ConfigError that a wrong value raises.
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


def refuse_unknown(rest: Sequence[str], known: Iterable[str]) -> None:
    """ConfigError for the first word that belongs to no flag, with the nearest of the known."""
    if not rest:
        return
    flag = rest[0].partition("=")[0]
    if not flag.startswith("--"):
        raise ConfigError(f"{shortened(rest[0])!r} belongs to no key: values follow theirs, as in --key value.")
    nearest = did_you_mean(flag, [f"--{key}" for key in known])
    raise ConfigError(f"unknown key {shortened(flag)}.{nearest} --help lists all.")


def _by_tyro(argv: Sequence[str], kinds: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`parse_flags` of words whose switches are in tyro's form. ValueError holds what tyro says."""
    import tyro  # 0.1 s that readers of a written config need not spend

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
    """argv with `--resume true`, `--resume=false` of true-or-false flags in tyro's form: `--resume`, `--no-resume`."""
    plain: list[str] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        flag, equals, value = token.partition("=")
        name = _name(flag)
        if kinds.get(name) is not bool:
            plain.append(token)
            continue
        if not equals and rest and rest[0].lower() in ("true", "false"):
            value = rest.pop(0)
        if value.lower() not in ("", "true", "false"):
            raise ConfigError(f"--{name} {value}: takes true or false.")
        plain.append(f"--no-{name}" if value.lower() == "false" else flag)
    return plain


def _name(flag: str) -> str:
    """`--train-batch-size=4` -> `train_batch_size`; words that are no flags stay as they are."""
    return flag.partition("=")[0].removeprefix("--").replace("-", "_") if flag.startswith("--") else flag
