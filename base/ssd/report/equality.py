"""Two runs that must be the same, held to each other: the first step, batch or tensor where they part, and by how much.

What is compared is what a run keeps (ssd.run.step_record): of each step the ids of its images, what was drawn for them
and the mean loss; norms of parameters where both runs recorded them; the statistics of each evaluation. A run of an
older commit has the mean loss of each logging interval instead. Differences of checkpoints are the caller's to find.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssd.errors import DataError
from ssd.text import said_by

__all__ = [
    "BATCHES",
    "Kept",
    "Parting",
    "Verdict",
    "differing_keys",
    "hold",
    "number_parting",
    "read_config",
    "read_kept",
]

WORDS = {
    "ids": "the ids of the batch's images differ",
    "draws": "the batch has the same images, and other draws (crop, mirroring, colours)",
    "loss": "the loss differs",
    "interval": "the mean loss of the logging interval that ends here differs",
    "norm": "the norm of {name} after the step differs",
    "score": "{name} of the evaluation differs",
    "tensor": "{name} of the last checkpoint differs",
    "end": "one run ends here, and the other goes on",
}
"""What may differ, in the order in which it happens within a step: what comes first is the cause."""
COUNTED = {
    "ids": ("the ids of one step's images", "the ids of {} steps' images"),
    "draws": ("the draws of one step's batch", "the draws of {} steps' batches"),
    "loss": ("the loss of one step", "the losses of {} steps"),
    "interval": ("the mean loss of one logging interval", "the mean losses of {} logging intervals"),
    "norm": ("the norms of parameters after one step", "the norms of parameters after {} steps"),
    "score": ("the statistics of one evaluation", "the statistics of {} evaluations"),
    "tensor": ("one tensor of the last checkpoints", "{} tensors of the last checkpoints"),
}
BATCHES = ("ids", "draws")


def _counted(what: str, number: int) -> str:
    one, many = COUNTED[what]
    return one if number == 1 else many.format(number)


@dataclass
class Kept:
    """What a run's metrics.jsonl keeps. values: kind of WORDS -> step -> name -> value. epochs: of each step."""

    values: defaultdict[str, dict[int, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    epochs: dict[int, int] = field(default_factory=dict)

    @property
    def last_step(self) -> int:
        """The last step that the run says anything of."""
        return max(self.epochs, default=0)


@dataclass(frozen=True)
class Parting:
    """One thing in which two runs differ. values: of each. difference: of numbers; relative: to the larger of them."""

    step: int
    epoch: int | None
    what: str
    name: str
    values: tuple[Any, Any]
    difference: float | None = None
    relative: float | None = None

    def __str__(self) -> str:
        where = f"step {self.step}" + (f" (epoch {self.epoch})" if self.epoch else "")
        said = f"{where}: {WORDS[self.what].format(name=self.name)}: {self.values[0]} and {self.values[1]}"
        if self.relative is None:
            return said
        return f"{said}, {self.difference:.3g} apart, which is {self.relative:.3g} of the larger"


@dataclass(frozen=True)
class Verdict:
    """names: of the runs. compared: kind of WORDS -> how many were. partings: in the order they happened.

    notes: what was not compared, and why. differing: keys of the configs with the values of both runs.
    """

    names: tuple[str, str]
    tolerance: float
    compared: Mapping[str, int]
    partings: Sequence[Parting]
    notes: Sequence[str]
    differing: Mapping[str, tuple[Any, Any]]

    @property
    def equal(self) -> bool:
        """Whether the runs are the same within the tolerance."""
        return not self.partings

    def as_json(self) -> str:
        """Everything, with the first parting alone and the others counted."""
        content = {
            "runs": self.names,
            "equal": self.equal,
            "tolerance": self.tolerance,
            "first": asdict(self.partings[0]) if self.partings else None,
            "compared": self.compared,
            "different": {what: len(ones) for what, ones in self._by_kind().items()},
            "notes": self.notes,
            "config": self.differing,
        }
        return json.dumps(content, indent=1, default=str) + "\n"

    def lines(self) -> Iterator[str]:
        """What was found, in sentences, one a line."""
        held = "to the bit" if not self.tolerance else f"within {self.tolerance:g} of the larger number"
        compared = "; ".join(_counted(what, count) for what, count in self.compared.items())
        yield f"A: {self.names[0]}"
        yield f"B: {self.names[1]}"
        if self.equal:
            yield f"A and B are the same {held}: {compared}."
        else:
            yield f"A and B part at {self.partings[0]}. They were held to each other {held}."
            for what, ones in self._by_kind().items():
                if what in self.compared:
                    worst = max(ones, key=lambda one: one.relative or 0.0)
                    one_each = " values" if what in ("norm", "score") else ""
                    largest = f", the worst at {worst}" if worst.relative else ""
                    yield f"  Of {_counted(what, self.compared[what])}, {len(ones)}{one_each} differ{largest}."
        for key, (one, other) in self.differing.items():
            yield f"Their configs differ in {key}: {one} and {other}."
        yield from self.notes

    def _by_kind(self) -> dict[str, list[Parting]]:
        found = {what: [one for one in self.partings if one.what == what] for what in WORDS}
        return {what: ones for what, ones in found.items() if ones}


def read_kept(folder: Path) -> Kept:
    """What a run's folder keeps. Raises DataError where it has no readable metrics.jsonl."""
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): name the folder of a run") from error
    kept = Kept()
    for number, line in enumerate(lines, 1):
        try:
            _take(kept, json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: no record of a run ({said_by(error)})") from error
    return kept


def _take(kept: Kept, record: Mapping[str, Any]) -> None:
    """Add one record of metrics.jsonl."""
    values, kind = kept.values, record["kind"]
    if kind == "steps":
        for name in (*BATCHES, "loss"):
            for step, value in enumerate(record[name], record["first_step"]):
                values[name][step] = {"": value}
                kept.epochs[step] = record["epoch"]
        values["norm"].update({int(step): norms for step, norms in record.get("norms", {}).items()})
    elif kind == "train":
        values["interval"][record["step"]] = {"": record["loss"]}
        kept.epochs[record["step"]] = record["epoch"]
    elif kind == "evaluation":
        values["score"][record["step"]] = {name: one for name, one in record.items() if name.startswith(("AP", "AR"))}


def hold(one: Kept, other: Kept, tolerance: float, only: Sequence[str] = ()) -> tuple[dict[str, int], list[Parting]]:
    """How many of each kind were compared, and the partings in the order they happened.

    tolerance: the largest difference of two numbers, relative to the larger; 0 holds them to the bit. only: the kinds
    that are compared; by default all. Intervals count where a run kept no record of its steps.
    """
    compared, found = {}, []
    stepwise = one.values["loss"] and other.values["loss"]
    for what in only or [what for what in WORDS if what != ("interval" if stepwise else "loss")]:
        a, b = one.values[what], other.values[what]
        shared = [step for step in a if step in b]
        compared.update({what: len(shared)} if shared else {})
        for step in shared:
            epoch = one.epochs.get(step)
            for name, value in a[step].items():
                other_value = b[step].get(name)
                if what not in BATCHES:
                    found += number_parting(step, epoch, what, name, (value, other_value), tolerance)
                elif value != other_value:
                    found.append(Parting(step, epoch, what, name, (value, other_value)))
    last = one.last_step, other.last_step
    if last[0] != last[1]:
        found.append(Parting(min(last), None, "end", "", last))
    order = list(WORDS)
    return compared, sorted(found, key=lambda part: (part.step, order.index(part.what)))


def number_parting(
    step: int, epoch: int | None, what: str, name: str, values: tuple[float | None, float | None], tolerance: float
) -> list[Parting]:
    """The parting of two numbers, where they differ by more than the tolerance. None stands for what is not finite."""
    one, other = values
    if one == other:
        return []
    if one is None or other is None:
        return [Parting(step, epoch, what, name, values)]
    difference = abs(one - other)
    relative = difference / max(abs(one), abs(other))
    return [] if relative <= tolerance else [Parting(step, epoch, what, name, values, difference, relative)]


def read_config(folder: Path) -> dict[str, Any]:
    """Key -> value of a run's config.json; empty where there is none that can be read."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {key: entry["value"] for key, entry in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def differing_keys(
    one: Mapping[str, Any], other: Mapping[str, Any], left_out: frozenset[str]
) -> dict[str, tuple[Any, Any]]:
    """Keys with other values in two configs, and these values; empty where one of the configs is not known."""
    if not one or not other:
        return {}
    both = {key: (one.get(key), other.get(key)) for key in {**one, **other} if key not in left_out}
    return {key: values for key, values in both.items() if values[0] != values[1]}
