"""The numbers that a plan is made of, with units, intervals and sources: base/published/constants.json.

The fitted ones come from the published rows: `python -m ssd.plan.constants` fits them anew and writes them to the file.
The stated ones are entered by hand. Each entry says where it comes from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from ssd.files import write_whole
from ssd.plan.model import Constants, fit, is_fitted
from ssd.plan.overhead import Overhead, fit_overhead
from ssd.plan.rows import OTHERS, PUBLISHED, Row, read_rows

__all__ = ["FILE", "fitted_constants", "fitted_overhead", "refit", "stated"]

FILE = PUBLISHED.with_name("constants.json")
MEANINGS = {
    "floor": ("ms", "a step without images: launches, optimizer, all-reduce inside a host"),
    "image": ("ms", "forward and backward of one image on A100-SXM 80 GB at 400 W, round 1.1"),
    "hosts": ("ms", "each doubling of the nodes; waiting for the slowest rank is in it"),
    "power": ("exponent", "an image at half the power limit takes 2 to this power times as long"),
    "pcie": ("logarithm", "of the factor of an image on a PCIe card, beside its power"),
    "small_memory": ("logarithm", "of the factor of an image on 40 GB of HBM2 instead of 80 GB of HBM2e"),
    "older": ("logarithm", "of the factor of an image with the software of one round earlier"),
    "start": ("s", "from run_start to the first epoch"),
    "first_epoch": ("s", "what the first epoch takes longer"),
    "fixed": ("s", "of one evaluation, on any number of accelerators"),
    "work": ("s", "of one evaluation, shared by the accelerators"),
}
CHIP = ("logarithm", "of the factor of an image on this chip, from its own rows, with the A100's floor and hosts")


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def stated(name: str, default: float | None = None) -> float:
    """A stated number of the file. KeyError for an unknown name without a default."""
    entry = _content()["stated"].get(name)
    if entry is None and default is not None:
        return default
    return float(_content()["stated"][name]["value"])


def fitted_constants() -> Constants:
    """The constants of a step, as the file has them."""
    found = _content()["fitted"]
    chips = {chip: float(one["value"]) for chip, one in found["chips"].items()}
    return Constants(**{one.name: float(found[one.name]["value"]) for one in fields(Constants)[:-1]}, chips=chips)


def fitted_overhead() -> Overhead:
    """The constants of what a run does besides its steps, as the file has them."""
    found = _content()["fitted"]
    return Overhead(**{one.name: float(found[one.name]["value"]) for one in fields(Overhead)})


def refit(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, Any]:
    """The fitted part of the file: value, unit, meaning, source; low and high where one submitter's rows are left out.

    others: rows that tell a chip's speed alone.
    """
    found = list(_values([*rows, *others]))
    without = [
        dict(_values([row for row in [*rows, *others] if row.submitter != submitter]))
        for submitter in sorted({row.submitter for row in rows})
    ]
    systems = sum(is_fitted(row) for row in rows)
    source = f"{systems} A100 systems of rounds 1.0 and 1.1 (steady_steps.csv)"
    entries: dict[str, Any] = {"chips": {}}
    for name, value in found:
        of_chip = name not in MEANINGS
        span = sorted(one[name] for one in without if name in one)
        unit, meaning = CHIP if of_chip else MEANINGS[name]
        count = sum(row.device.chip == name for row in [*rows, *others])
        entry = {
            "value": round(value, 6),
            "low": round(span[0], 6),
            "high": round(span[-1], 6),
            "unit": unit,
            "meaning": meaning,
            "source": f"{count} system{'s' * (count != 1)} of {name}" if of_chip else source,
        }
        (entries["chips"] if of_chip else entries)[name] = entry
    return entries


def _values(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """Every fitted constant by its name; a chip's logarithm by the chip's."""
    constants, overhead = fit(rows), fit_overhead(rows)
    for owner in (constants, overhead):
        for one in fields(owner):
            if one.name != "chips":
                yield one.name, getattr(owner, one.name)
    yield from constants.chips.items()


def main() -> int:
    """Fit anew, and write the file. Returns 0."""
    fitted = refit(read_rows()[0], read_rows(OTHERS)[0])
    write_whole(FILE, json.dumps({**_content(), "fitted": fitted}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
