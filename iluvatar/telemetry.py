"""What ixsmi says of one accelerator: power, temperature, memory, clock, use. What it does not know is None, never 0.

    ixsmi --query-gpu=gpu.power.draw,temperature.gpu,memory.used,... --format=csv,noheader,nounits -i 3

CoreX 3.x calls the power field power.draw, 4.x gpu.power.draw; an unknown field makes ixsmi print an error instead of
the line. Each field is therefore asked for alone, once; those that this ixsmi knows are then read together.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["FIELDS", "Ixsmi", "parse_line", "reader"]

log = logging.getLogger(__name__)

FIELDS: dict[str, tuple[str, ...]] = {
    "power_w": ("gpu.power.draw", "power.draw"),
    "temperature_c": ("temperature.gpu",),
    "memory_mib": ("memory.used",),
    "clock_mhz": ("clocks.current.sm", "clocks.sm"),
    "use_percent": ("utilization.gpu",),
}
"""What is reported, with its unit, and the names ixsmi may know it by, newest first."""

_NUMBER = re.compile(r"^(-?\d+(?:\.\d+)?)\s*(W|C|MiB|MHz|%)?$")
_SECONDS = 10


def parse_value(text: str) -> float | None:
    """A number, with its unit or without; None for N/A, [N/A], [Not Supported] and the like."""
    match = _NUMBER.match(text.strip())
    return float(match[1]) if match else None


def parse_line(text: str, names: Sequence[str]) -> dict[str, float | None] | None:
    """One line of csv,noheader for `names`; None unless the text is one line with as many values."""
    lines = [line for line in text.splitlines() if line.strip()]
    values = lines[0].split(",") if len(lines) == 1 else []
    return dict(zip(names, map(parse_value, values), strict=True)) if len(values) == len(names) else None


def find_ixsmi(root: Path) -> Path | None:
    """The ixsmi of the PATH, else CoreX's."""
    found = shutil.which("ixsmi") or shutil.which(str(root / "bin" / "ixsmi"))
    return Path(found) if found else None


def run_ixsmi(program: Path, arguments: Sequence[str]) -> str:
    """ixsmi's standard output, "" when it fails or hangs. Its libraries are beside it, not where the loader looks."""
    libraries = f"{program.resolve().parent.parent / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    try:
        done = subprocess.run(
            [str(program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("ixsmi: %s", error)
        return ""
    return done.stdout if done.returncode == 0 else ""


class Ixsmi:
    """Reads one accelerator. `query(arguments)` gives ixsmi's output; which fields it knows is found out once."""

    def __init__(self, index: str, query: Callable[[Sequence[str]], str]) -> None:
        self._index = index
        self._query = query
        self._fields: dict[str, str] | None = None

    def read(self) -> dict[str, float | None]:
        """All of FIELDS; None is unknown."""
        if self._fields is None:
            self._fields = {name: field for name, known in FIELDS.items() for field in self._first_known(known)}
        values = self._ask(list(self._fields.values())) if self._fields else None
        found = dict(zip(self._fields, values.values(), strict=True)) if values else {}
        return {name: found.get(name) for name in FIELDS}

    def _first_known(self, candidates: Sequence[str]) -> Sequence[str]:
        """The first field that is answered with one value, be it N/A, as a list of one or none."""
        answered = [field for field in candidates if self._answers(field)]
        return answered[:1]

    def _answers(self, field: str) -> bool:
        text = self._query(self._arguments([field])).strip()
        return bool(text) and "\n" not in text and "valid" not in text.lower() and "," not in text

    def _ask(self, fields: Sequence[str]) -> dict[str, float | None] | None:
        return parse_line(self._query(self._arguments(fields)), fields)

    def _arguments(self, fields: Sequence[str]) -> list[str]:
        return [f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-i", self._index]


def physical_index(index: int, visible: str | None) -> str:
    """What ixsmi calls torch's device `index`: CUDA_VISIBLE_DEVICES renumbers, and ixsmi does not heed it."""
    names = [name.strip() for name in visible.split(",") if name.strip()] if visible else []
    return names[index] if index < len(names) else str(index)


def reader(index: int, root: Path, visible: str | None) -> Ixsmi | None:
    """The reader of torch's device `index`; None where there is no ixsmi."""
    program = find_ixsmi(root)
    if program is None:
        return None
    return Ixsmi(physical_index(index, visible), lambda arguments: run_ixsmi(program, arguments))
