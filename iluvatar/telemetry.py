"""What ixsmi says of the accelerators: power, temperature, memory, clock, use. What it does not know is None, never 0.

    ixsmi --query-gpu=index,uuid,gpu.power.draw,temperature.gpu,memory.used --format=csv,noheader,nounits

One call reads all accelerators. CoreX 3.x calls the power field power.draw, 4.x gpu.power.draw; an unknown field makes
ixsmi print an error instead of lines. Each field is therefore asked for alone, once; those that this ixsmi answers are
then read together.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["FIELDS", "Ixsmi", "parse_rows", "parse_value", "physical_name", "reader"]

log = logging.getLogger(__name__)

FIELDS: dict[str, tuple[str, ...]] = {
    "power_w": ("gpu.power.draw", "power.draw"),
    "temperature_c": ("temperature.gpu",),
    "memory_mib": ("memory.used",),
    "clock_mhz": ("clocks.current.sm", "clocks.sm"),
    "use_percent": ("utilization.gpu",),
}
"""What is reported (ssd.run.telemetry.TELEMETRY), and the names ixsmi may know it by, newest first."""

NAMES = ("index", "uuid")
"""What an accelerator is called; CUDA_VISIBLE_DEVICES may hold either."""

_NUMBER = re.compile(r"^(-?\d+(?:\.\d+)?)\s*(W|C|MiB|MHz|%)?$")
_SECONDS = 10


def parse_value(text: str) -> float | None:
    """A number, with its unit or without; None for N/A, [N/A], [Not Supported] and the like."""
    match = _NUMBER.match(text.strip())
    return float(match[1]) if match else None


def parse_rows(text: str, columns: int) -> list[list[str]]:
    """Rows of csv,noheader: nothing unless every line has so many values."""
    rows = [[value.strip() for value in line.split(",")] for line in text.splitlines() if line.strip()]
    return rows if all(len(row) == columns for row in rows) else []


class Ixsmi:
    """Reads accelerators by torch's index.

    query: arguments -> ixsmi's standard output, "" when it failed. visible: CUDA_VISIBLE_DEVICES, which renumbers them
    for torch, while ixsmi shows all.
    """

    def __init__(self, query: Callable[[Sequence[str]], str], visible: str | None = None) -> None:
        self._query = query
        self._visible = visible
        self._fields: dict[str, str] | None = None
        self._unread: dict[str, dict[str, float | None]] = {}

    def read(self, index: int) -> dict[str, float | None]:
        """All of FIELDS of one accelerator; None is unknown. Asking for the same one again calls ixsmi again."""
        name = physical_name(index, self._visible)
        if name not in self._unread:
            self._unread = self._read_all()
        return self._unread.pop(name, dict.fromkeys(FIELDS))

    def _read_all(self) -> dict[str, dict[str, float | None]]:
        if self._fields is None:
            answered = {name: [field for field in known if self._knows(field)] for name, known in FIELDS.items()}
            self._fields = {name: fields[0] for name, fields in answered.items() if fields}
            missing = [name for name in FIELDS if name not in self._fields]
            if missing:
                log.warning("ixsmi does not tell %s: unknown in this run's record", ", ".join(missing))
        readings: dict[str, dict[str, float | None]] = {}
        for row in self._ask([*NAMES, *self._fields.values()]):
            values = dict(zip(self._fields, map(parse_value, row[len(NAMES) :]), strict=True))
            for name in row[: len(NAMES)]:
                readings[name] = {key: values.get(key) for key in FIELDS}
        return readings

    def _knows(self, field: str) -> bool:
        """Whether a field is answered, be it by N/A: one value an accelerator, and not a sentence about the field."""
        rows = self._ask([field])
        return bool(rows) and not any("valid" in value.lower() or field in value for row in rows for value in row)

    def _ask(self, fields: Sequence[str]) -> list[list[str]]:
        text = self._query([f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])
        return parse_rows(text, len(fields))


def physical_name(index: int, visible: str | None) -> str:
    """What ixsmi calls torch's accelerator `index`: its index or UUID in CUDA_VISIBLE_DEVICES, else the same index."""
    names = [name.strip() for name in visible.split(",") if name.strip()] if visible else []
    return names[index] if index < len(names) else str(index)


def run_ixsmi(program: Path, arguments: Sequence[str]) -> str:
    """ixsmi's standard output, "" when it fails or hangs. Its libraries are beside it, not where the loader looks."""
    libraries = f"{program.resolve().parent.parent / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    environ = {**os.environ, "LD_LIBRARY_PATH": libraries}
    try:
        done = subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, check=False, timeout=_SECONDS, env=environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("ixsmi: %s", error)
        return ""
    return done.stdout if done.returncode == 0 else ""


def reader(root: Path, visible: str | None) -> Ixsmi | None:
    """The reader of this host's accelerators, by the ixsmi on PATH or in CoreX's folder; None without one."""
    found = shutil.which("ixsmi") or shutil.which(str(root / "bin" / "ixsmi"))
    if found is None:
        log.warning("no ixsmi on PATH or in %s/bin: power and temperature will be unknown", root)
        return None
    program = Path(found)
    return Ixsmi(lambda arguments: run_ixsmi(program, arguments), visible)
