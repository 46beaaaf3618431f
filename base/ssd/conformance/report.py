"""The verb `vendors check NAME`: the table of a vendor's overrides, for people or as JSON."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich import box
from rich.table import Table

from ssd.config import resolve
from ssd.conformance.run import Row, run_conformance
from ssd.console import SafeConsole
from ssd.errors import EXIT_INTERNAL
from ssd.ops import OP_NAMES
from ssd.vendor import Vendor, load_vendor

__all__ = ["check_command", "table"]

COLOURS = {"pass": "green", "compiled": "cyan", "FAIL": "bold red", "not run": "yellow"}
"""Every verdict a row can have, and how it is shown."""

WIDTH = 160
"""Columns of the table where there is no terminal to fit into."""


def check_command(
    name: str,
    *,
    config: str | None = None,
    op: Sequence[str] = (),
    means: Sequence[str] = (),
    quick: bool = False,
    as_json: bool = False,
) -> int:
    """`vendors check NAME`: write the table. 0 if nothing failed, "not run" included; 1 if a row failed.

    config: only the overrides that this config of the vendor asks for. op, means: only these ops, only by these means;
    all where none is named. quick: a few cases an op. as_json: write JSON instead.
    """
    vendor = load_vendor(name)
    ops, names = list(op) or None, None
    if config:
        asked = resolve(["--name", name, "--config", config]).config
        ops = [one for one in op or OP_NAMES if getattr(asked, f"{one}_op") != "reference"]
        names = [getattr(asked, f"{one}_op") for one in ops]
    # A config that asks for no override has nothing to check, which is another thing than checking everything.
    rows = run_conformance(vendor, ops, list(means) or None, names=names, quick=quick) if ops != [] else []
    console = SafeConsole(soft_wrap=as_json, width=None if sys.stdout.isatty() else WIDTH)
    if as_json:
        console.out(json.dumps(_document(vendor, rows), indent=1), highlight=False)
    else:
        _write(console, vendor, rows)
    return EXIT_INTERNAL if any(row.ok is False for row in rows) else 0


def _document(vendor: Vendor, rows: Sequence[Row]) -> dict[str, Any]:
    """What --json writes: the machine and the rows."""
    return {
        "vendor": vendor.name,
        "machine": platform.platform(),
        "torch": torch.__version__,
        **vendor.describe_system(),
        "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
    }


def _write(console: SafeConsole, vendor: Vendor, rows: Sequence[Row]) -> None:
    """The table and a line of counts."""
    if not rows:
        console.print(f"{vendor.name}: no override to check; every op is the reference.")
        return
    console.print(table(rows))
    counts = (f"{sum(row.verdict == verdict for row in rows)} {verdict}" for verdict in COLOURS)
    console.print(f"{vendor.name}: {', '.join(counts)}.")


def table(rows: Sequence[Row]) -> Table:
    """Rows as a table; an op's name stands where it changes."""
    grid = Table(box=box.SIMPLE_HEAD)
    for name in ("op", "override", "by means of", "case", "result", "worst output, or why", "error", "allowed", "time"):
        grid.add_column(name, overflow="fold", justify="right" if name in ("error", "allowed", "time") else "left")
    before: tuple[str, str, str] | None = None
    for row in rows:
        key = (row.op, row.override, row.means)
        shown = ("", "", "") if key == before else key
        times = ""
        if row.seconds is not None and row.reference_seconds is not None:
            times = f"{row.seconds * 1e3:.3f} ms, reference {row.reference_seconds * 1e3:.3f} ms"
        verdict = f"[{COLOURS[row.verdict]}]{row.verdict}[/]"
        grid.add_row(*shown, row.case, verdict, row.note, _number(row.error), _number(row.tolerance), times)
        before = key
    return grid


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"
