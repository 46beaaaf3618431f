"""What `compare` is given, read: folders of runs, campaigns, packages, result logs, and names of published systems."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.account.parts import PARTS
from ssd.config.keys import PLACE
from ssd.config.nearest import did_you_mean
from ssd.config.paths import usable_path
from ssd.config.vendor_keys import keys_of_roles
from ssd.counts import steps_per_epoch
from ssd.errors import ConfigError
from ssd.mlperf.attempts import STATE, load_state
from ssd.mlperf.keys import DRAWN, OUR_PREFIX, PRECISION, SETTINGS, VERSION
from ssd.mlperf.limits import TRAIN_SAMPLES
from ssd.mlperf.notice import REPOSITORIES, origin_of
from ssd.mlperf.records import read_records
from ssd.mlperf.results import RunResult, find_logs, read_result
from ssd.mlperf.times import TIMES
from ssd.plan.rows import OTHERS, PUBLISHED, TRAIN_IMAGES, Row, read_rows
from ssd.report.equality import read_config
from ssd.report.side_by_side import FINER, Side
from ssd.text import counted, shortened

__all__ = ["read_sides"]

LOG = "result_0.txt"
LOGGED = {
    **SETTINGS,
    PRECISION: "precision",
    VERSION: "version",
    DRAWN: "scheme of draws",
    constants.GLOBAL_BATCH_SIZE: "global batch",
    constants.OPT_BASE_LR: "learning rate applied",
}
"""Log key -> how the comparison calls it."""


def read_sides(words: Sequence[str]) -> list[Side]:
    """The sides that words name, in their order. A published system that several words name is one side.

    Raises ConfigError for a word that names nothing, DataError for a folder without a result log of SSD.
    """
    sides: list[Side] = []
    for word in words:
        path = _path(word)
        found = list(_of_path(path)) if path is not None else [_of_row(row) for row in _published(word)]
        sides += [one for one in found if path is not None or one not in sides]
    return sides


def _path(word: str) -> Path | None:
    try:
        path = usable_path(Path(word))
    except ValueError:
        return None
    return path if path.exists() else None


def _of_path(path: Path) -> Iterator[Side]:
    if path.is_dir() and (path / STATE).is_file():
        yield _side(path.name, path, [path / one.folder / LOG for one in load_state(path).counted])
    elif path.is_dir() and (path / LOG).is_file() and (path / "config.json").is_file():
        yield _side(path.name, path, [path / LOG])
    elif path.is_dir():
        of_system: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
        for log, _ in find_logs([path]):
            row = read_result(log)
            of_system[str(row.submitter), str(row.system)].append(log)
        for (submitter, system), logs in of_system.items():
            yield _side(f"{path.name}: {submitter} {system}", path, logs)
    else:
        yield _side(path.name, path, [path])


def _side(name: str, source: Path, logs: Sequence[Path]) -> Side:
    """Runs of one system, from their result logs and from what lies beside each."""
    rows = [read_result(log) for log in logs]
    values = [_values(log) for log in logs]
    reached = [row for row in rows if row.status == "success" and row.time_to_train_min is not None]
    ours = all(any(key.startswith(OUR_PREFIX) for key in one) for one in values)
    machines = [_machine(log) for log in logs]
    round_, origin = origin_of(source, ours)
    return Side(
        name=name,
        runs=len(rows),
        reached=len(reached),
        minutes=[row.time_to_train_min for row in reached if row.time_to_train_min is not None],
        epochs=[float(row.epochs) for row in reached if row.epochs is not None],
        rates=[row.images_per_s for row in rows if row.images_per_s is not None],
        devices=_devices(logs[0], machines[0]),
        round=round_,
        division=_joined([str(row.division or "not said") for row in rows]),
        source=origin,
        task=_joined([_task(one) for one in values]),
        account=_account(rows, logs),
        unusual=list(dict.fromkeys(row.unusual for row in rows if row.unusual)),
        config=_joined_facts([_config(log, one) for log, one in zip(logs, values, strict=True)]),
        machine=_joined_facts(machines),
    )


def _values(log: Path) -> dict[str, Any]:
    """The first value of each key of a log."""
    found: dict[str, Any] = {}
    for record in read_records(log):
        found.setdefault(record.key, record.value)
    return found


def _config(log: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Keys of a run's config.json, without its places; and the hyper-parameters that its log says."""
    logged = {name: values[key] for key, name in LOGGED.items() if key in values}
    config = read_config(log.parent)
    places = keys_of_roles(config, PLACE)
    kept = {key: value for key, value in config.items() if key not in places}
    return {name: str(value) for name, value in {**logged, **kept}.items()}


def _machine(log: Path) -> dict[str, str]:
    """The machine's description: a run's system.json, or systems/NAME.json of the package that the log lies in."""
    places = [log.parent / "system.json"]
    places += [folder / "systems" / f"{log.parent.parent.name}.json" for folder in log.parents[2:4]]
    for place in places:
        try:
            content = json.loads(place.read_text(encoding="utf-8"))
            return {str(name): str(value) for name, value in content.items() if value}
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
    return {}


def _devices(log: Path, machine: Mapping[str, str]) -> int | None:
    """Accelerators of the system; for a run of ours its processes."""
    config = read_config(log.parent)
    if config:
        return int(config["nproc_per_node"]) * int(config["nodes"])
    try:
        return int(machine["accelerators_per_node"]) * int(machine["number_of_nodes"]) or None
    except (KeyError, ValueError):
        return None


def _task(values: Mapping[str, Any]) -> str:
    """What a run trains, where it is not the benchmark's own network and data."""
    images, width = values.get(constants.TRAIN_SAMPLES), values.get("ssd_width", 1)
    parts = []
    if isinstance(images, int) and images not in TRAIN_SAMPLES:
        parts.append(counted(images, "image"))
    parts += [f"width {width:g}"] if width != 1 else []
    return ", ".join(parts)


def _account(rows: Sequence[RunResult], logs: Sequence[Path]) -> dict[str, list[float]]:
    """Part -> seconds of each run that tells it: first what any log tells, then the finer parts of runs of ours."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for field, title in TIMES.items():
        found[title] += [seconds for row in rows if (seconds := getattr(row, field)) is not None]
    for log in logs:
        try:
            summary = json.loads((log.parent / "summary.json").read_text(encoding="utf-8"))
            for part, seconds in summary["account"]["parts"].items():
                found[f"{FINER}{PARTS[part].title if part in PARTS else part}"].append(float(seconds))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return {part: seconds for part, seconds in found.items() if seconds}


def _joined_facts(facts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    names = dict.fromkeys(name for one in facts for name in one)
    return {name: _joined([one[name] for one in facts if name in one]) for name in names}


def _joined(values: Sequence[str]) -> str:
    return " / ".join(dict.fromkeys(values))


# Published rows


def _published(word: str) -> list[Row]:
    """The published rows that a word names: a system's name; or words that all stand in round, submitter, system and
    chip, as `1.1 NVIDIA` or `A100`.
    """
    rows = [*read_rows(PUBLISHED)[0], *read_rows(OTHERS)[0]]
    if exact := [row for row in rows if row.system.casefold() == word.casefold()]:
        return exact
    parts = word.casefold().split()
    found = [row for row in rows if parts and all(_says(row, part) for part in parts)]
    if not found:
        raise ConfigError(
            f"{shortened(word)}: no such file or folder, and no published system is called so."
            f"{did_you_mean(word, [row.system for row in rows])} Published systems are named as in "
            f"{PUBLISHED.parent.name}/{PUBLISHED.name}, by round and submitter ('1.1 Dell') or by chip (A100)."
        )
    return found


def _says(row: Row, part: str) -> bool:
    """Whether a word stands in a row; one like `1.1` is the round, and no part of a system's name."""
    if re.fullmatch(r"\d\.\d", part):
        return part == row.round
    return part in f"{row.submitter} {row.system} {row.device.chip}".casefold()


def _published_account(row: Row) -> dict[str, list[float]]:
    epoch_s = steps_per_epoch(TRAIN_IMAGES, row.global_batch) * row.step_ms / 1000
    seconds = {"start_s": row.start_s, "first_epoch_excess_s": row.first_epoch_excess_s, "epoch_s": epoch_s}
    return {TIMES[field]: [value] for field, value in seconds.items()}


def _rate_of(row: Row) -> float:
    """Steady images/s of a system. In a round they are the set's images over a steady epoch, as `results` has them."""
    if row.round == "none":
        return row.global_batch / row.step_ms * 1000
    return TRAIN_IMAGES / (steps_per_epoch(TRAIN_IMAGES, row.global_batch) * row.step_ms) * 1000


def _of_row(row: Row) -> Side:
    in_a_round = row.round != "none"
    return Side(
        name=row.name if in_a_round else f"{row.submitter} {row.system}",
        runs=max(1, len(row.seconds)),
        reached=len(row.seconds) or len(row.epochs),
        minutes=[seconds / 60 for seconds in row.seconds],
        epochs=list(row.epochs),
        rates=[_rate_of(row)],
        devices=row.accelerators,
        round=row.round if in_a_round else "none of MLPerf's",
        division="closed" if in_a_round else "none",
        source=f"{REPOSITORIES}{row.round}" if in_a_round else f"{row.submitter}'s statement",
        account=_published_account(row) if in_a_round else {},
        config={"global batch": str(row.global_batch)},
        machine={
            "accelerator_model_name": row.device.chip,
            "number_of_nodes": str(row.nodes),
            "accelerators_per_node": f"{row.accelerators / row.nodes:g}",
        },
    )
