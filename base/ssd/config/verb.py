"""How a verb of the command line declares its flags and words, and how they are read. It is the same for all verbs.

A verb reads its own flags. In addition it reads either the keys of a run, which `ssd.config.resolve` parses, or plain
words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssd.config.describe import describe_kind
from ssd.config.flags import parse_flags, refuse_unknown
from ssd.config.nearest import did_you_mean
from ssd.config.paths import usable_path
from ssd.errors import ConfigError
from ssd.text import shortened

__all__ = ["QUIET", "Flag", "Verb", "Words", "read", "verb_of"]

QUIET = "--quiet"
"""A flag of every verb: nothing is shown but warnings, errors and what the verb answers."""


@dataclass(frozen=True)
class Flag:
    """A flag of one verb.

    kind: the type of its value; a Literal is a choice. meaning: one phrase for the help text. default: the value where
    the flag is not given. It is False for a flag of kind bool. again: whether the flag may be given several times; its
    value is then the list of all values. least, most: bounds of a number.
    """

    kind: Any
    meaning: str
    default: Any = None
    required: bool = False
    again: bool = False
    least: float = -math.inf
    most: float = math.inf

    @property
    def allowed(self) -> str:
        """What the flag accepts, as text."""
        parts = [describe_kind(self.kind)]
        parts += [f"at least {self.least}"] if self.least > -math.inf else []
        parts += [f"at most {self.most}"] if self.most < math.inf else []
        return ", ".join(parts)

    def checked(self, name: str, value: Any) -> Any:
        """The value, with `~` expanded in paths. Raises ConfigError for one outside the bounds, and for a bad path."""
        if isinstance(value, tuple):
            return tuple(self.checked(name, one) for one in value)
        if isinstance(value, Path):
            return _path(f"--{name}", value)
        if isinstance(value, int | float) and not self.least <= value <= self.most:
            given = f"{value:g}" if isinstance(value, float) else shortened(str(value))
            raise ConfigError(f"--{name} {given}: takes {self.allowed}.")
        return value


def _path(label: str, path: Path) -> Path:
    try:
        return usable_path(path)
    except ValueError as error:
        raise ConfigError(f"{label} {shortened(str(path))}: {error}.") from error


@dataclass(frozen=True)
class Words:
    """The words of a verb that belong to no flag.

    name: how the usage line shows a word. kind: Path or str. least, most: how many words there may be.
    """

    name: str
    meaning: str
    kind: type[Path] | type[str] = str
    least: int = 1
    most: int | None = None

    @property
    def usage(self) -> str:
        """The words as the usage line shows them."""
        text = self.name if self.most == 1 else f"{self.name}..."
        return text if self.least else f"[{text}]"


@dataclass(frozen=True)
class Verb:
    """The declaration of a verb.

    summary: what it does, in one phrase. flags: its own flags by name. words: its words, or None. keys: the keys of a
    run that its help lists. A verb with such keys accepts all keys of a run, so that the flags of a run can be given to
    `check` or `prepare` unchanged.
    """

    summary: str
    flags: Mapping[str, Flag] = field(default_factory=dict)
    words: Words | None = None
    keys: Sequence[str] = ()


def verb_of(argv: Sequence[str], verbs: Mapping[str, Verb]) -> str:
    """The verb that a command line begins with: of two words where there is one. ConfigError where there is none."""
    for name in (" ".join(argv[:2]), argv[0]):
        if name not in verbs:
            continue
        ours = [verb for verb in verbs if verb.startswith(f"{name} ")]
        if ours and len(argv) > 1 and not argv[1].startswith("-"):
            raise ConfigError(
                f"{name} {shortened(argv[1])}: say `{name}` alone, or {', '.join(f'`{verb}`' for verb in ours)}."
            )
        return name
    word = shortened(argv[0])
    raise ConfigError(f"no verb is called {word!r}.{did_you_mean(argv[0], verbs)} Verbs: {', '.join(verbs)}.")


def read(verb: Verb, argv: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """The words of `argv` that are not flags of the verb, and the value of each of the verb's own flags.

    For a verb with keys of a run, these words are the keys and their values, as text. Otherwise they have the kind of
    the verb's words. Raises ConfigError for a flag that is unknown, is missing or has a wrong value, and for too many
    or too few words.
    """
    left, values = _read_repeated(verb, argv)
    single = {name: flag for name, flag in verb.flags.items() if not flag.again}
    left, found = _read_flags(single, left)
    if not verb.keys:
        _require_words(verb, left)
    for name, flag in single.items():
        if flag.required and not found.get(name):
            raise ConfigError(f"--{name} is missing: {flag.meaning}.")
        values[name] = found.get(name, False if flag.kind is bool else flag.default)
    if verb.words and verb.words.kind is Path:
        return [_path(verb.words.name, Path(word)) for word in left], values
    return left, values


def _read_flags(flags: Mapping[str, Flag], argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The words that are left, and the values of the flags that are given."""
    kinds = {name: flag.kind for name, flag in flags.items()}
    values, left = parse_flags(argv, kinds, {name: flag.allowed for name, flag in flags.items()})
    return left, {name: flags[name].checked(name, value) for name, value in values.items()}


def _read_repeated(verb: Verb, argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The words that are left, and for each flag that may be given several times the list of its values."""
    values: dict[str, Any] = {name: [] for name, flag in verb.flags.items() if flag.again}
    left, words = [], list(argv)
    while words:
        word = words.pop(0)
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if name not in values or not word.startswith("--"):
            left.append(word)
            continue
        with_value = [word] if "=" in word else [word, *words[:1]]
        del words[: len(with_value) - 1]
        values[name].append(_read_flags({name: verb.flags[name]}, with_value)[1][name])
    return left, values


def _require_words(verb: Verb, words: Sequence[str]) -> None:
    """Raise ConfigError for an unknown flag, and for too many or too few words."""
    for at, word in enumerate(words):
        if word.startswith("--") or verb.words is None:
            refuse_unknown(words[at:], verb.flags)
    if verb.words is None:
        return
    if len(words) < verb.words.least:
        raise ConfigError(f"{verb.words.name} is missing: {verb.words.meaning}. --help shows the command line.")
    if verb.words.most is not None:
        refuse_unknown(words[verb.words.most :], verb.flags)
