"""Flags to typed values, by tyro; its complaints as one sentence each. Knows nothing of which flags there are.

tyro takes `--a_b` and `--a-b` alike, `--key value` and `--key=value`, `--switch` and `--no-switch`. A TypedDict whose
keys may all be absent makes it return the flags that stand in argv and no others: where a value came from is known.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
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
    import tyro  # 0.1 s that readers of a written config need not spend

    fields = dict(kinds)
    flags = TypedDict("flags", fields, total=False)  # type: ignore[misc]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            values, rest = tyro.cli(flags, args=_plain_switches(argv, kinds), return_unknown_args=True, add_help=False)
    except SystemExit:
        raise ConfigError(_reworded(said.getvalue(), argv, allowed)) from None
    return dict(values), rest


def refuse_unknown(rest: Sequence[str], known: Mapping[str, Any]) -> None:
    """ConfigError for the first word that belongs to no flag, with the nearest of the known."""
    if not rest:
        return
    flag = rest[0].partition("=")[0]
    if not flag.startswith("--"):
        raise ConfigError(f"{rest[0]!r} belongs to no key: values follow theirs, as in --key value.")
    nearest = did_you_mean(flag, [f"--{key}" for key in known])
    raise ConfigError(f"unknown key {flag}.{nearest} --help lists all.")


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


def _reworded(said: str, argv: Sequence[str], allowed: Mapping[str, str]) -> str:
    """What tyro said in a box, as one sentence: flag, what was given, what it takes."""
    flag = re.search(r"--\w[\w-]*", said)
    name = _name(flag.group()) if flag else ""
    if name not in allowed:
        return " ".join(said.split())
    return f"--{name} {shortened(_given(name, argv)) or '(no value)'}: takes {allowed[name]}."


def _given(name: str, argv: Sequence[str]) -> str:
    """The words given to a flag, as typed, where it stands last."""
    at = max(i for i, token in enumerate(argv) if token.startswith("--") and _name(token) == name)
    if "=" in argv[at]:
        return argv[at].partition("=")[2]
    following = list(argv[at + 1 :])
    ends = [i for i, token in enumerate(following) if token.startswith("--")]
    return " ".join(following[: ends[0]] if ends else following)
