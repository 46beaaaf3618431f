"""Published systems, one row each: what was measured, and what its device's name says about the device.

A row comes from a CSV file with the columns of base/published/steady_steps.csv. Cells may be empty; what a row lacks is
derived by a stated rule, or the row is left out and counted.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd.config.folders import ROOT
from ssd.errors import DataError
from ssd.mlperf.limits import TRAIN_SAMPLES
from ssd.text import one_line, shortened

__all__ = ["OTHERS", "PUBLISHED", "TRAIN_IMAGES", "Device", "LeftOut", "Row", "describe_device", "read_rows"]

PUBLISHED = ROOT / "base" / "published" / "steady_steps.csv"
OTHERS = PUBLISHED.with_name("other_systems.csv")
"""Systems outside MLPerf's rounds: they tell a chip's speed, and no constant is fitted on them."""
TRAIN_IMAGES = TRAIN_SAMPLES[0]
"""Images of train2017 with a box."""
MOST = 1e9
"""The largest number of a cell. A larger one is an error of writing."""
REQUIRED = ("round", "submitter", "system", "accelerator", "global_batch", "steady_step_ms")


@dataclass(frozen=True)
class Device:
    """An accelerator, as far as its name tells.

    chip: "A100". link: "sxm", "pcie", or "" where the name does not say. memory_gb, watts: None where unknown.
    """

    chip: str
    link: str = ""
    memory_gb: int | None = None
    watts: int | None = None


USUAL_WATTS = {("A100", "sxm", 40): 400, ("A100", "sxm", 80): 400, ("A100", "pcie", 40): 250, ("A100", "pcie", 80): 300}
"""Power limits of the data sheets, for names that state none. An SXM board of either memory size has the same."""
CHIPS = r"A100|A800|H100|H200|H800|B200|V100|A40|A30|L40S?|MI\d{3}X?|BI-V\d+|TPU[ -]?v\d|Gaudi\d?|Ascend ?\d*"


def describe_device(name: str, hint: str = "") -> Device:
    """A device by its published name; `hint` (the system's name) fills in what the name leaves out.

    >>> describe_device("NVIDIA A100-PCIE-40GB (250W)")
    Device(chip='A100', link='pcie', memory_gb=40, watts=250)
    """

    def find(pattern: str) -> str | None:
        for text in (name, hint):
            if found := re.search(pattern, text, re.IGNORECASE):
                return found.group(1)
        return None

    chip = (find(f"({CHIPS})") or name.strip() or "unknown").upper()
    link = {"p": "pcie", "s": "sxm"}.get((find("(pcie|sxm)") or " ")[0].lower(), "")
    memory = find(r"(?<!\d)(\d{2,3}) ?GB?(?![a-z])")
    memory_gb = int(memory) if memory else None
    watts = find(r"(?<!\d)(\d{3}) ?W(?![a-z])")
    usual = USUAL_WATTS.get((chip, link, memory_gb or 0))
    return Device(chip, link, memory_gb, int(watts) if watts else usual)


@dataclass(frozen=True)
class Row:
    """One published system. step_ms: one optimizer step. seconds, epochs: of each of its runs."""

    round: str
    submitter: str
    system: str
    device: Device
    nodes: int
    accelerators: int
    global_batch: int
    step_ms: float
    start_s: float
    first_epoch_excess_s: float
    epochs: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def local_batch(self) -> float:
        """Images an accelerator and step."""
        return self.global_batch / self.accelerators

    @property
    def name(self) -> str:
        """Round, submitter and system, for tables."""
        return f"{self.round} {self.submitter} {self.system}"


@dataclass(frozen=True)
class LeftOut:
    """A row that says too little to be used, and what it lacks."""

    name: str
    why: str


def read_rows(path: Path = PUBLISHED) -> tuple[list[Row], list[LeftOut]]:
    """Rows of a CSV file, and those left out. DataError names the file and line of what is no such row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if twice := sorted({column for column in columns if columns.count(column) > 1}):
                raise DataError(f"{path}: its first line has the column(s) {', '.join(map(shortened, twice))} twice")
            if missing := [column for column in REQUIRED if column not in columns]:
                raise DataError(f"{path}: its first line lacks the column(s) {', '.join(missing)}")
            found = [_row(cells, f"{path}, line {reader.line_num}") for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    return [one for one in found if isinstance(one, Row)], [one for one in found if isinstance(one, LeftOut)]


def _row(cells: Mapping[str, str | None], place: str) -> Row | LeftOut:
    if None in cells:
        raise DataError(f"{place}: it has more cells than the first line has columns")
    text = {key: one_line((value or "").strip()) for key, value in cells.items()}
    if short := [column for column in REQUIRED if not text.get(column)]:
        raise DataError(f"{place}: the column(s) {', '.join(short)} are empty")
    name = f"{text['round']} {text['submitter']} {text['system']}"
    derived = _count_from_name(text["system"])
    accelerators = _number(text, "accelerators", place, derived[1] if derived else None)
    if accelerators is None:
        return LeftOut(name, "neither its row nor its name says how many accelerators it has")
    nodes = _number(text, "nodes", place, derived[0] if derived else 1.0)
    batch, step = _number(text, "global_batch", place), _number(text, "steady_step_ms", place)
    assert nodes is not None
    assert batch is not None
    assert step is not None
    _require(place, {"accelerators": [accelerators], "nodes": [nodes], "global_batch": [batch]}, whole=True)
    _require(place, {"steady_step_ms": [step]})
    if not nodes <= accelerators <= batch:
        raise DataError(
            f"{place}: {nodes:g} nodes, {accelerators:g} accelerators, a global batch of {batch:g}: each node has an "
            "accelerator, and each accelerator an image"
        )
    epochs, seconds = (_numbers(text.get(name, ""), name, place) for name in ("epochs_run", "seconds_run"))
    _require(place, {"epochs_run": epochs}, whole=True)
    _require(place, {"seconds_run": seconds})
    if seconds and len(epochs) != len(seconds):
        raise DataError(f"{place}: epochs_run has {len(epochs)} runs and seconds_run {len(seconds)}")
    start = _number(text, "start_s", place, 0.0) or 0.0
    if start < 0:
        raise DataError(f"{place}: start_s is {start:g}; it must not be below 0")
    return Row(
        round=text["round"],
        submitter=text["submitter"],
        system=text["system"],
        device=describe_device(text["accelerator"], text["system"]),
        nodes=int(nodes),
        accelerators=int(accelerators),
        global_batch=int(batch),
        step_ms=step,
        start_s=start,
        first_epoch_excess_s=_number(text, "first_epoch_excess_s", place, 0.0) or 0.0,
        epochs=tuple(int(value) for value in epochs),
        seconds=tuple(seconds),
    )


def _require(place: str, columns: Mapping[str, Sequence[float]], whole: bool = False) -> None:
    """DataError for a number that no system has: 0 or less, above MOST, or with a fraction where `whole` is set."""
    for column, values in columns.items():
        for value in values:
            if not 0 < value <= MOST or (whole and value != int(value)):
                kind = "a whole number from 1" if whole else "above 0, and"
                raise DataError(f"{place}: {column} is {value:g}; it must be {kind} up to {MOST:g}")


def _number(text: Mapping[str, str], column: str, place: str, default: float | None = None) -> float | None:
    if not text.get(column):
        return default
    return _numbers(text[column], column, place)[0]


def _numbers(cell: str, column: str, place: str) -> list[float]:
    said = shortened(repr(cell), 80)
    try:
        values = [float(word) for word in cell.split()]
    except ValueError as error:
        raise DataError(f"{place}: {column} is {said}; numbers are expected") from error
    if not all(map(math.isfinite, values)) or "_" in cell:
        raise DataError(f"{place}: {column} is {said}; finite numbers are expected")
    return values


def _count_from_name(system: str) -> tuple[int, int] | None:
    """(nodes, accelerators) from names such as `2xXE8545x4A100-SXM`, `gx_A100x4`, `SR670v2_8xA100`; else None.

    The rule: a number joined to a chip's name by x counts the accelerators of a node. A number before x at the start of
    the name, where it is not that one, counts the nodes.
    """
    chip = rf"(?:{CHIPS})"
    counted = re.search(rf"x(\d+){chip}|(?<!\d)(\d+)x{chip}|{chip}[\w-]*?x(\d+)(?!\d)", system, re.IGNORECASE)
    if counted is None:
        return None
    each = int(next(group for group in counted.groups() if group))
    several = re.match(r"(\d+)x", system)
    nodes = int(several.group(1)) if several and counted.start() > 0 else 1
    return nodes, nodes * each
