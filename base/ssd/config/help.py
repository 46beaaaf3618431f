"""Help texts: the verbs, and each key with type, unit, meaning, default and bounds. Made from the schema itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssd.config import Config, Resolved
from ssd.config.describe import describe_allowed, environment_name, unit_of
from ssd.config.files import config_files
from ssd.config.folders import BASE_CONFIGS, display_path, vendor_folders
from ssd.config.keys import SECTIONS
from ssd.errors import EXIT_KILLED, EXIT_MEANING

__all__ = ["console", "show_config", "show_keys", "show_usage", "show_vendors", "show_verb"]

EXAMPLES = """\
  bash run_training.sh --name cpu --config demo          from base/: the whole run, one process a device
  python -m ssd check --name cpu --config demo           what can be known before it
  python -m ssd config --name cpu --config demo          every key, and where its value came from
  python -m ssd train --name cpu --config smoke          seconds, without data or launcher"""


def console() -> Console:
    """Standard output; as wide as its terminal, and wide enough for a table elsewhere."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)


def show_usage(verbs: Mapping[str, str]) -> None:
    """`python -m ssd --help`. verbs: what each does, by name."""
    out = console()
    out.print("usage: python -m ssd VERB [--key value ...]    (python -m ssd VERB --help: the verb's keys)\n")
    _print_pairs(out, verbs)
    out.print(f"\nexamples\n{EXAMPLES}\n\nexit codes")
    _print_pairs(out, {"" if code == EXIT_KILLED else str(code): what for code, what in EXIT_MEANING.items()})


def _print_pairs(out: Console, pairs: Mapping[str, str]) -> None:
    table = _grid()
    for name, text in pairs.items():
        table.add_row(f"  {name}", escape(text))
    out.print(table)


def _grid() -> Table:
    """Names to the left, never broken; texts to the right."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    return table


def show_verb(name: str, summary: str, own: Mapping[str, str]) -> None:
    """What a verb does, and the flags that it alone has, with their meanings."""
    out = console()
    out.print(f"usage: python -m ssd {name} [--key value ...]\n\n{summary}")
    if own:
        out.print("\nOf this verb alone")
        _print_pairs(out, {f"--{flag}": meaning for flag, meaning in own.items()})


def show_keys() -> None:
    """Every key of a run, under headings."""
    out = console()
    out.print(
        "\nPrecedence: default < config file < environment variable < command line. --a_b and --a-b are the same."
    )
    out.print("A key that is true or false is given as --key or --no-key.")
    table = _grid()
    for key, field in Config.model_fields.items():
        if key in SECTIONS:
            out.print(table)
            out.print(f"\n{SECTIONS[key]}")
            table = _grid()
        table.add_row(f"  --{key}", escape(f"{field.description} ({_details(key)})"))
    out.print(table)


def _details(key: str) -> str:
    default = _text(Config.model_fields[key].default)
    parts = [describe_allowed(key), unit_of(key), f"default {default}"]
    variable = environment_name(key)
    return "; ".join(part for part in [*parts, f"variable {variable}" if variable else ""] if part)


def show_config(resolved: Resolved) -> None:
    """Every key's value and where it came from, under the headings of the help."""
    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("key", "value", "from"):
        table.add_column(heading, overflow="fold")
    for key in Config.model_fields:
        if key in SECTIONS:
            table.add_row(f"[bold]{SECTIONS[key]}[/bold]")
        value = getattr(resolved.config, key)
        text = _text(value) if value in (None, ()) else f"{_text(value)} {unit_of(key)}"
        table.add_row(f"  {key}", escape(text), escape(resolved.provenance[key]))
    out.print(table)


def _text(value: object) -> str:
    """A value as a user would write it."""
    if value is None or value == ():
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def show_vendors() -> None:
    """The vendors found, their folders and configs, and the configs of base that every vendor takes."""
    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("name", "folder", "configs"):
        table.add_column(heading, overflow="fold")
    for name, folder in vendor_folders().items():
        table.add_row(name, escape(display_path(folder)), ", ".join(config_files(folder / "config")) or "-")
    table.add_row("(any)", escape(display_path(BASE_CONFIGS)), ", ".join(config_files(BASE_CONFIGS)))
    out.print(table)
