"""The verb `vendors check NAME`: the table of a vendor's overrides, for people or as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import random
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich import box
from rich.table import Table

import ssd
from ssd.config import Config, resolve
from ssd.conformance.device import device_rows, has_device
from ssd.conformance.rows import COMPILED_ONLY, HARDWARE, Row
from ssd.conformance.run import Plan, run_conformance
from ssd.console import SafeConsole
from ssd.errors import EXIT_INTERNAL, ConfigError
from ssd.ops import OP_NAMES
from ssd.report.summary import source_commit
from ssd.vendor import Vendor, load_vendor

__all__ = ["SCHEMA", "check_command", "document", "table"]

SCHEMA = "ssd-vendors-check-1"
"""Name and version of what --json writes. It changes with docs/vendors_check.schema.json."""

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
    seed: int | None = None,
    case: str | None = None,
) -> int:
    """`vendors check NAME`: write the table. 0 if nothing failed, "not run" included; 1 if a row failed.

    config: only the overrides that this config of the vendor asks for, and its precision and layout on the device. op,
    means: only these ops, only by these means; all where none is named. quick: a few cases an op. as_json: write JSON
    instead. case: only the case of this name. seed: of the random cases, drawn where none is given.
    """
    plan = Plan(random.SystemRandom().randrange(2**31) if seed is None else seed, quick, case)
    vendor = load_vendor(name)
    asked = resolve(["--name", name, "--config", config]).config if config else None
    vendor.config = asked
    rows = _device_rows(vendor, asked or Config(name=name), plan, op) if HARDWARE in (means or [HARDWARE]) else []
    rows += _override_rows(vendor, asked, plan, op, means, alone=not rows)
    if case and not rows:
        raise ConfigError(f"no case is called {case!r} here. The table of `vendors check` shows every name.")
    console = SafeConsole(soft_wrap=as_json, width=None if sys.stdout.isatty() else WIDTH)
    if as_json:
        console.out(json.dumps(document(vendor, plan, rows), indent=1), highlight=False)
    else:
        _write(console, vendor, plan, rows)
    return EXIT_INTERNAL if any(row.ok is False for row in rows) else 0


def _device_rows(vendor: Vendor, config: Config, plan: Plan, op: Sequence[str]) -> list[Row]:
    """Rows of the vendor's device, where there is one to hold to the CPU."""
    if not has_device(vendor, config):
        return []
    return device_rows(vendor, config, quick=plan.quick, ops=op, case=plan.case)


def _override_rows(
    vendor: Vendor, asked: Config | None, plan: Plan, op: Sequence[str], means: Sequence[str], alone: bool
) -> list[Row]:
    """Rows of the overrides that were asked for. alone: no device has rows, which may be all that was meant."""
    ops, names = [one for one in op if one in OP_NAMES], None
    if asked:
        ops = [one for one in ops or OP_NAMES if getattr(asked, f"{one}_op") != "reference"]
        names = [getattr(asked, f"{one}_op") for one in ops]
    if (asked or op) and not ops:  # there is nothing to check, which is another thing than checking everything
        return []
    if not alone:
        ops = [one for one in ops or OP_NAMES if one in {override.op for override in vendor.overrides()}]
        if not ops:
            return []
    return run_conformance(vendor, ops or None, list(means) or None, names=names, plan=plan)


def document(vendor: Vendor, plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """What --json writes, and what a vendor sends. docs/vendors_check.schema.json says what each entry is."""
    return {
        "schema": SCHEMA,
        "vendor": vendor.name,
        "commit": source_commit(),
        "seed": plan.seed,
        "quick": plan.quick,
        "case": plan.case,
        "machine": platform.platform(),
        "device": vendor.describe_system(),
        "versions": {name: _version(name) for name in ("torch", "triton", "numpy")}
        | {"python": platform.python_version(), "ssd": ssd.__version__, "cuda": torch.version.cuda or "",
           "hip": torch.version.hip or ""},
        "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
    }  # fmt: skip


def _version(package: str) -> str:
    """The version that is installed; "" where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _write(console: SafeConsole, vendor: Vendor, plan: Plan, rows: Sequence[Row]) -> None:
    """The table, a line of counts with the seed, and how each failed case is run alone."""
    if not rows:
        where = "is the CPU itself" if vendor.device_type == "cpu" else f"({vendor.device_type}) is not here"
        console.print(f"{vendor.name}: nothing was run: no override to check, and the device {where}.")
        return
    console.print(table(rows))
    counts = (f"{sum(row.verdict == verdict for row in rows)} {verdict}" for verdict in COLOURS)
    console.print(f"{vendor.name}: {', '.join(counts)}. Random cases of seed {plan.seed}.")
    failed = [
        row
        for row in rows
        if row.ok is False and row.case != "all" and row.op != "device" and row.means != COMPILED_ONLY
    ]
    if failed:
        console.print("A failed case alone:")
    for row in failed:
        words = ["python", "-m", "ssd", "vendors", "check", vendor.name, "--op", row.op, "--means", row.means]
        words += ["--case", row.case, "--seed", str(plan.seed)]
        console.print(f"  {shlex.join(words)}", soft_wrap=True, markup=False, highlight=False)


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
