"""What was measured on a machine: a run's folder, or the file that `plan --measure` keeps.

Both say the time of a step at a batch. The file says it at two batches, and what one evaluation and the start take.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.account.books import lead_times
from ssd.account.facts import Epoch, facts_of, read_metrics
from ssd.account.parts import BEFORE, PARTS
from ssd.config import Config
from ssd.config.keys import COMPUTE
from ssd.config.roles import keys_of_role
from ssd.errors import DataError
from ssd.files import write_whole
from ssd.mlperf.logs import read_log
from ssd.mlperf.system import describe_system
from ssd.text import said_by

__all__ = [
    "Measured",
    "Timed",
    "kept_file",
    "machine_of",
    "read_measured",
    "set_up_of",
    "step_keys",
    "timed_of",
    "write_measured",
]

KIND = "ssd-plan-measured-1"
DESCRIBED = (
    *("host_processor_model_name", "host_processor_vcpu_count", "accelerators_per_node", "accelerator_model_name"),
    *("framework",),
)
"""What a measurement holds for, by the names of MLPerf's system description."""
BESIDE_COMPUTE = ("num_classes", "width", "num_workers", "prefetch")
"""Keys that change the time of a step, beside those of the role compute. The batch is what a measurement varies."""


@dataclass(frozen=True)
class Timed:
    """Steps at one batch. local_batch: images a process and step. step_ms: while training.

    spread: half the range of the logging intervals' times, as a share of their median; None where fewer than two say.
    """

    local_batch: int
    step_ms: float
    spread: float | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured. origin: "measured here", or a run's folder. images: of the training set.

    accelerators, nodes: of the run. evaluation_s: (fixed, work): what one evaluation takes on any number of
    accelerators, and what they share, in seconds of one; None where none was measured. start_s: seconds between
    run_start and run_stop that are neither steps nor evaluations. set_up_s: before run_start; None where unknown.
    epochs: to the run's target, None where it was not reached. rank_spread: the standard deviation of what ranks need
    before they wait for each other, as a share of an epoch; None for one rank.
    """

    origin: str
    accelerators: int
    nodes: int
    timed: tuple[Timed, ...]
    images: int
    start_s: float
    set_up_s: float | None = None
    evaluation_s: tuple[float, float] | None = None
    epochs: int | None = None
    rank_spread: float | None = None


def read_measured(path: Path) -> Measured:
    """What a run's folder or a file of `plan --measure` says.

    Raises DataError where it is neither, where a file of the folder is missing or damaged, and where it has no rate.
    """
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: not the folder of a finished run, nor a file of plan --measure ({said_by(error)})"
        ) from error


def _of_folder(folder: Path) -> Measured:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values = {key: entry["value"] for key, entry in config.items()}
    images = int(read_log(folder / "result_0.txt", "result_0.txt").values[constants.TRAIN_SAMPLES])
    processes = int(values["nproc_per_node"]) * int(values["nodes"])
    timed = timed_of(folder, summary, processes)
    seconds, evaluations = summary["seconds"], summary["evaluations"]
    evaluating, steps = float(seconds.get("evaluation", 0.0)), int(summary["steps"])
    each = evaluating / len(evaluations) if evaluations else None
    return _checked(
        Measured(
            origin=f"the run in {folder}",
            accelerators=processes,
            nodes=int(values["nodes"]),
            timed=(timed,),
            images=images,
            start_s=max(0.0, float(seconds["run"]) - steps * timed.step_ms / 1000 - evaluating),
            set_up_s=set_up_of(summary),
            evaluation_s=None if each is None else (0.0, each * processes),
            epochs=int(evaluations[-1][0]) if evaluations and summary["exit_code"] == 0 else None,
            rank_spread=_rank_spread(facts_of(read_metrics(folder / "metrics.jsonl")).epochs),
        )
    )


def timed_of(folder: Path, summary: Mapping[str, Any], processes: int) -> Timed:
    """The time of a step of a run, by its summary and the logging intervals of its metrics.jsonl."""
    rate, batch = float(summary["images_per_s"] or 0), int(summary["global_batch"])
    if rate <= 0:
        raise DataError(f"{folder}: its run was too short to have a rate; train at least two logging intervals")
    rates = [float(one) for _, one in facts_of(read_metrics(folder / "metrics.jsonl")).rates]
    spread = (1 / min(rates) - 1 / max(rates)) / 2 * statistics.median(rates) if len(rates) > 1 else None
    return Timed(batch // processes, batch / rate * 1000, spread)


def _rank_spread(epochs: Sequence[Epoch]) -> float | None:
    spreads = [statistics.pstdev(lead_times(one)) / one.seconds for one in epochs if len(one.ranks) > 1 and one.seconds]
    return statistics.median(spreads) if spreads else None


def set_up_of(summary: Mapping[str, Any]) -> float | None:
    """Seconds of a run before run_start, by the account in its summary; None where it has none."""
    parts = (summary.get("account") or {}).get("parts")
    if not parts:
        return None
    return sum(float(seconds) for name, seconds in parts.items() if PARTS[name].group == BEFORE)


def _of_file(path: Path) -> Measured:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["kind"] != KIND:
        raise ValueError(f"its kind is {content['kind']!r}, and not {KIND!r}")
    fields = content["measured"]
    evaluation = fields["evaluation_s"]
    timed = tuple(Timed(**one) for one in fields["timed"])
    if evaluation is not None:
        fixed, work = map(float, evaluation)
        evaluation = fixed, work
    found = Measured(**{**fields, "timed": timed, "evaluation_s": evaluation})
    return _checked(replace(found, origin=f"{found.origin} ({content['date']}, {path})"))


def _checked(found: Measured) -> Measured:
    """The same. Raises ValueError for numbers that no measurement can have."""
    whole = [found.accelerators, found.nodes, found.images, *(one.local_batch for one in found.timed)]
    whole += [found.epochs] if found.epochs is not None else []
    if not found.timed or any(type(one) is not int or one < 1 for one in whole):
        raise ValueError("its counts must be whole numbers from 1 on")
    times = [one.step_ms for one in found.timed]
    least = [found.start_s, found.set_up_s or 0.0, found.rank_spread or 0.0, *(found.evaluation_s or ())]
    least += [one.spread or 0.0 for one in found.timed]
    if not all(map(math.isfinite, [*least, *times])) or min(least) < 0 or min(times) <= 0:
        raise ValueError("its times must be finite and not below 0")
    return found


def write_measured(path: Path, found: Measured, about: Mapping[str, Any]) -> None:
    """Keep a measurement as a JSON file that `read_measured` takes. about: when, on what and by which keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"kind": KIND, **about, "measured": asdict(found)}, indent=1) + "\n")


def step_keys(config: Config) -> dict[str, Any]:
    """The keys of a config that a measurement holds for, with their values, as JSON has them."""
    values = config.model_dump(mode="json")
    return {key: values[key] for key in (*keys_of_role(type(config), COMPUTE), *BESIDE_COMPUTE)}


def machine_of(vendor_fields: Mapping[str, str]) -> dict[str, str]:
    """What a measurement says of its machine. vendor_fields: those of the vendor's `describe_system`."""
    system = describe_system(vendor_fields)
    return {field: system[field] for field in DESCRIBED}


def kept_file(config: Config, machine: Mapping[str, str]) -> Path:
    """Where `plan --measure` keeps what it measures of a config on a machine. Another machine has another file."""
    told = json.dumps([step_keys(config), str(config.data_dir), dict(machine)], sort_keys=True)
    name = f"{config.name}-{config.config}".replace("/", "_")
    return config.cache_dir / "measured" / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}.json"
