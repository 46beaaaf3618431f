"""The verb `completion`: a script by which a shell completes verbs, flags and the values of flags. tyro writes it."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, Union, get_args

from ssd.config import Config
from ssd.config.files import config_files
from ssd.config.folders import BASE_CONFIGS, vendor_folders
from ssd.config.vendor_keys import config_in, own_keys
from ssd.config.verb import Verb
from ssd.errors import ConfigError, MachineError

__all__ = ["SHELLS", "completion_command", "completion_script"]

SHELLS = Literal["bash", "zsh", "fish"]
WITH_FILES = {
    "\n    return completions\n": "\n    return completions or ['__TYRO_COMPLETE_FILES__']\n",
    # bash: the word alone, names with spaces, and a slash behind the name of a folder.
    'COMPREPLY=($(compgen -f -- "$cur"))': "compopt -o filenames 2>/dev/null\n"
    '    mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")',
    "$words $current)": "$words (commandline -ct) $current)",  # fish: the word that is being typed
}
"""Lines of tyro's scripts, and what takes their place."""


def completion_command(shell: str, verbs: Mapping[str, Verb]) -> int:
    """Print the script for `shell`; exit code 0."""
    sys.stdout.write(completion_script(shell, verbs))
    return 0


def completion_script(shell: str, verbs: Mapping[str, Verb]) -> str:
    """The script for a shell, of today's verbs, keys, vendors and configs.

    Raises ConfigError for another shell, and MachineError where this version of tyro cannot write the script.
    """
    if shell not in get_args(SHELLS):
        raise ConfigError(f"completion {shell}: takes {', '.join(get_args(SHELLS))}.")
    import tyro

    commands = [name for name in verbs if " " not in name]
    parts = [Annotated[_flags(name, verbs), tyro.conf.subcommand(name)] for name in commands]
    every: Any = Union[tuple(parts)]  # noqa: UP007
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            tyro.cli(every, prog="ssd", args=["--tyro-print-completion", shell], use_underscores=True)
    except (ImportError, NotImplementedError) as error:
        raise MachineError(
            f"tyro {tyro.__version__} writes no completion for {shell} ({error}): pip install --upgrade tyro"
        ) from error
    return _with_files(said.getvalue())


def _with_files(script: str) -> str:
    """tyro's script, which also completes the names of files where no verb, flag or value begins with the word.

    tyro knows files behind some flags alone, though a shell offers them everywhere to a command that has no script.
    """
    for line, better in WITH_FILES.items():
        script = script.replace(line, better)
    return script


def _flags(name: str, verbs: Mapping[str, Verb]) -> Any:
    """What may follow a verb, as a type for tyro: its keys and flags, or one of the second words of such verbs."""
    import tyro

    known: dict[str, Any] = {"name": _choice(vendor_folders()), "config": _choice(_configs())}
    fields: dict[str, Any] = {"quiet": Annotated[bool, _said("warnings, errors and the answer alone")]}
    verb = verbs.get(name, Verb(""))
    keys = {key: Config.model_fields[key] for key in verb.keys}
    for folder in vendor_folders().values() if keys else ():
        keys |= own_keys(config_in(folder))
    for key, field in keys.items():
        fields[key] = Annotated[known.get(key, field.annotation), _said(str(field.description))]
    for flag, one in verb.flags.items():
        kind = Path if one.kind == tuple[Path, ...] else one.kind  # of several tyro does not say that they are files
        fields[flag] = Annotated[kind, _said(one.meaning)]
    seconds = [other for other in verbs if other.startswith(f"{name} ")]
    seconds += [f"{name} {shell}" for shell in get_args(SHELLS)] if name == "completion" else []
    if seconds:
        parts = [
            Annotated[_flags(one, verbs), tyro.conf.subcommand(one.split()[1], prefix_name=False)] for one in seconds
        ]
        fields["word"] = Annotated[Union[tuple(parts)], tyro.conf.OmitArgPrefixes]  # noqa: UP007
    return TypedDict(f"flags_of_{name.replace(' ', '_')}", fields, total=False)  # type: ignore[misc,operator]


def _said(meaning: str) -> Any:
    """What zsh and fish show beside a flag. Left to itself tyro adds that the flag has no default, which is not so."""
    import tyro

    return tyro.conf.arg(help=meaning, help_behavior_hint="")


def _configs() -> dict[str, Any]:
    """The configs of every vendor and of base by name."""
    found = dict(config_files(BASE_CONFIGS))
    for folder in vendor_folders().values():
        found |= config_files(folder / "config")
    return dict(sorted(found.items()))


def _choice(words: Any) -> Any:
    return Literal[tuple(words)]
