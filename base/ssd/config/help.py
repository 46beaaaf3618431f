"""Help texts, made from the keys and the verbs' declarations: type, unit, meaning, default and bounds of each key."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic.fields import FieldInfo
from rich.markup import escape
from rich.table import Table

from ssd.config import Config, Resolved
from ssd.config.describe import describe_allowed, environment_name, unit_of
from ssd.config.files import config_files
from ssd.config.flags import parse_flags
from ssd.config.folders import BASE_CONFIGS, display_path, vendor_folder, vendor_folders
from ssd.config.keys import SECTIONS
from ssd.config.resolved import resolved_json
from ssd.config.vendor_keys import config_in, own_keys
from ssd.config.verb import QUIET, Flag, Verb
from ssd.console import SafeConsole, console
from ssd.errors import EXIT_KILLED, EXIT_MEANING

__all__ = ["show_config", "show_usage", "show_vendors", "show_verb"]

EXAMPLES = """\
  {program} launch --name cpu --config demo          the whole run, one process a device (run_training.sh does the same)
  {program} launch --resume --output RUN             go on with a run
  {program} check --name cpu --config demo           what can be known before it
  {program} config --name cpu --config demo          every key, and where its value came from
  {program} train --name cpu --config smoke          seconds, without data or launcher"""


def show_usage(verbs: Mapping[str, str]) -> None:
    """`python -m ssd --help`. verbs: what each does, by name."""
    out = console()
    out.print(f"usage: {_program()} VERB [--key value ...]    ({_program()} VERB --help: the verb's keys)\n")
    _print_pairs(out, verbs)
    out.print(f"\nexamples\n{EXAMPLES.format(program=_program())}\n\nexit codes")
    _print_pairs(out, {"" if code == EXIT_KILLED else str(code): what for code, what in EXIT_MEANING.items()})


def _program() -> str:
    """The command as it was given: `ssd` where the package is installed, else `python -m ssd`."""
    return "ssd" if Path(sys.argv[0]).name == "ssd" else "python -m ssd"


def _print_pairs(out: SafeConsole, pairs: Mapping[str, str]) -> None:
    table = _grid()
    for name, text in pairs.items():
        table.add_row(f"  {name}", escape(text))
    out.print(table)


def _grid() -> Table:
    """A table of two columns: names, which are never wrapped, and texts."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    return table


def show_verb(name: str, verb: Verb, argv: Sequence[str] = ()) -> None:
    """Print what a verb does, its words, its own flags, and the keys of a run that it reads.

    argv: what stands beside --help. A vendor that it names has its own keys shown too.
    """
    out = console()
    words = f" {verb.words.usage}" if verb.words else ""
    flags = " [--key value ...]" if verb.keys or verb.flags else ""
    out.print(escape(f"usage: {_program()} {name}{words}{flags}\n\n{verb.summary}"))
    if verb.words:
        out.print()
        _print_pairs(out, {verb.words.name: verb.words.meaning})
    if verb.flags:
        out.print("\nOf this verb alone")
        _print_pairs(out, {f"--{flag}": f"{one.meaning} ({_details_of(one)})" for flag, one in verb.flags.items()})
    if verb.keys:
        _print_keys(out, verb.keys)
        _print_own_keys(out, argv)
    out.print("\nOf every verb")
    _print_pairs(out, {QUIET: "show nothing but warnings, errors and what the verb answers", "--help": "this page"})


def _details_of(flag: Flag) -> str:
    parts = [flag.allowed]
    if flag.required:
        parts.append("must be given")
    elif flag.again:
        parts.append("may be given again")
    elif flag.default not in (None, ()):
        parts.append(f"default {_text(flag.default)}")
    return "; ".join(parts)


def _print_keys(out: SafeConsole, keys: Sequence[str]) -> None:
    """Print keys of a run under their headings."""
    out.print(
        "\nPrecedence: default < config file < environment variable < command line. --a_b and --a-b are the same."
    )
    out.print("A key that is true or false is given as --key or --no-key.")
    if len(keys) < len(Config.model_fields):
        out.print("The other keys of a run may stand here too (`config --help` lists all).")
    table, heading = _grid(), ""
    for key, field in Config.model_fields.items():
        heading = SECTIONS.get(key, heading)
        if key not in keys:
            continue
        if heading:
            out.print(table)
            out.print(f"\n{heading}")
            table, heading = _grid(), ""
        table.add_row(f"  --{key}", escape(f"{field.description} ({_details(field)})"))
    out.print(table)


def _print_own_keys(out: SafeConsole, argv: Sequence[str]) -> None:
    """Print the keys that the vendor named in argv has declared, or which vendors have declared some."""
    vendor = parse_flags(argv, {"name": str}, {"name": "text"})[0].get("name")
    if vendor is None:
        named = [name for name, folder in vendor_folders().items() if own_keys(config_in(folder))]
        if named:
            out.print(f"\nVendors with keys of their own: {', '.join(named)}. --name V --help lists those of V.")
        return
    table = _grid()
    for key, field in own_keys(config_in(vendor_folder(vendor))).items():
        table.add_row(f"  --{key}", escape(f"{field.description} ({_details(field)})"))
    if table.row_count:
        out.print(f"\n{_heading(vendor)}")
        out.print(table)


def _heading(vendor: str) -> str:
    return f"Of vendor {vendor} alone"


def _details(field: FieldInfo) -> str:
    parts = [describe_allowed(field), unit_of(field), f"default {_text(field.default)}"]
    variable = environment_name(field)
    return "; ".join(part for part in [*parts, f"variable {variable}" if variable else ""] if part)


def show_config(resolved: Resolved, *, as_json: bool = False) -> None:
    """Print every key's value and where it came from, under the headings of the help; or as config.json has it."""
    if as_json:
        sys.stdout.write(resolved_json(resolved))
        return
    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("key", "value", "from"):
        table.add_column(heading, overflow="fold")
    kind = type(resolved.config)
    headings = {**SECTIONS, **dict.fromkeys(list(own_keys(kind))[:1], _heading(resolved.config.name))}
    for key, field in kind.model_fields.items():
        if key in headings:
            table.add_row(f"[bold]{headings[key]}[/bold]")
        value = getattr(resolved.config, key)
        text = _text(value) if value in (None, ()) else f"{_text(value)} {unit_of(field)}"
        table.add_row(f"  {key}", escape(text), escape(resolved.provenance[key]))
    out.print(table)


def _text(value: object) -> str:
    """A value as a user would write it."""
    if value is None or value == ():
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def show_vendors(*, as_json: bool = False) -> None:
    """Print the vendors that were found with their folders and configs, and the configs of base for every vendor.

    as_json: a flat list; base has no name.
    """
    if as_json:
        rows = [
            {"name": name, "folder": str(folder), "configs": list(config_files(folder / "config"))}
            for name, folder in vendor_folders().items()
        ]
        shared = {"name": None, "folder": str(BASE_CONFIGS), "configs": list(config_files(BASE_CONFIGS))}
        sys.stdout.write(json.dumps([*rows, shared], indent=1) + "\n")
        return
    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("name", "folder", "configs"):
        table.add_column(heading, overflow="fold")
    for name, folder in vendor_folders().items():
        table.add_row(name, escape(display_path(folder)), ", ".join(config_files(folder / "config")) or "-")
    table.add_row("(any)", escape(display_path(BASE_CONFIGS)), ", ".join(config_files(BASE_CONFIGS)))
    out.print(table)
