"""Makes the folder that a submitter hands in, in the layout of the rounds, from the folders of the runs.

    OUT/systems/NAME.json                                 the system description
    OUT/results/NAME/ssd/result_0.txt ... result_4.txt    the logs as they were written
    OUT/benchmarks/ssd/implementations/NAME/              README.md, COMMIT, config.json

No run is chosen or left out: exactly five runs of one configuration and one commit go in, also those that did not
converge. The folder appears as a whole or not at all.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.config.keys import PLACE
from ssd.config.vendor_keys import keys_of_roles
from ssd.errors import ConfigError, DataError
from ssd.mlperf.agreement import require_metrics, same_everywhere
from ssd.mlperf.evidence import copy_findings
from ssd.mlperf.keys import TEST_DATA
from ssd.mlperf.limits import DEFAULT_RULESET, NO_CURRENT_ROUND, RESULTS, TRAIN_SAMPLES, need_ruleset
from ssd.mlperf.runs import RecordedRun, difference, read_run, why_not_a_result
from ssd.mlperf.system import FIELDS
from ssd.text import counted

__all__ = ["folder_name", "make_package"]


def make_package(
    runs: Sequence[Path], out: Path, *, fields: Mapping[str, str] | None = None, ruleset: str = DEFAULT_RULESET
) -> Path:
    """Write the package of the runs' folders to `out`, which must not exist yet. Returns `out`.

    fields: fields of the system description that the owner gives. Raises ConfigError for what the caller can
    change: the number of runs, runs of several systems, an unknown field, a system without a name. Raises DataError for
    a run that is no result.
    """
    need_ruleset(ruleset)
    if out.exists():
        raise ConfigError(f"{out} exists: a package is written as a whole; choose another --out, or remove it")
    recorded = [read_run(folder) for folder in runs]
    _check_runs(recorded)
    first = recorded[0]
    name = folder_name(str(first.config["system"]))
    half = out.with_name(out.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    results = half / "results" / name / "ssd"
    results.mkdir(parents=True)
    for index, run in enumerate(recorded):
        shutil.copyfile(run.log.path, results / f"result_{index}.txt")
    description = _description(recorded, fields or {})
    (half / "systems").mkdir()
    _write_json(half / "systems" / f"{name}.json", description)
    code = half / "benchmarks" / "ssd" / "implementations" / name
    code.mkdir(parents=True)
    (code / "COMMIT").write_text(f"{_commit(recorded)}\n", encoding="utf-8")
    _write_json(code / "config.json", _without_places(first.config))
    (code / "README.md").write_text(_readme(name, recorded, ruleset), encoding="utf-8")
    half.rename(out)
    return out


def folder_name(system: str) -> str:
    """The system's name as a file name that git and the official tools take. Raises ConfigError without a name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", system).strip("_.")
    if not name or system == "unknown":
        raise ConfigError("the runs have no system name: give --system NAME to the campaign or the runs")
    return name


def _check_runs(runs: Sequence[RecordedRun]) -> None:
    if len(runs) != RESULTS:
        raise ConfigError(
            f"{counted(len(runs), 'run')}: a package holds exactly {RESULTS}, in the order they were made"
        )
    for run in runs:
        if reason := why_not_a_result(run):
            raise DataError(f"{run.folder} is no result: {reason}")
        if run.config.get("submitter") == "unknown":
            raise ConfigError(f"{run.folder} names no submitter: give --submitter ORG to the campaign or the runs")
        metrics = require_metrics(run.folder / "metrics.jsonl")
        if contradictions := list(same_everywhere(run.log, run.config, run.summary, metrics, run.system)):
            raise DataError(f"{run.folder}: its files contradict each other: {'; '.join(contradictions)}")
    if copies := [str(finding) for finding in copy_findings([run.log for run in runs])]:
        raise DataError(f"a run is counted twice: {'; '.join(copies)}")
    for one, other in combinations(runs, 2):
        if reason := difference(one, other):
            raise ConfigError(f"{one.folder} and {other.folder} {reason}")


def _commit(runs: Sequence[RecordedRun]) -> str:
    """The commit of the code, from the first run that recorded it. A run that diverged did not record it."""
    return next((run.commit for run in runs if run.commit), "unknown")


def _description(runs: Sequence[RecordedRun], fields: Mapping[str, str]) -> dict[str, str]:
    first = runs[0]
    for field in fields:
        if field not in FIELDS:
            raise ConfigError(f"system description: no field {field!r}; fields are {', '.join(FIELDS)}")
    description = {field: str(first.system.get(field, "")) for field in FIELDS}
    description |= {
        "submitter": str(first.config["submitter"]),
        "division": str(first.config["division"]),
        "system_name": str(first.config["system"]),
        "number_of_nodes": str(first.config["nodes"]),
        "status": str(first.log.values.get("submission_status", "onprem")),
    }
    if description["accelerators_per_node"] not in ("", "0"):
        description["accelerators_per_node"] = str(first.config["nproc_per_node"])
    description |= fields
    description["sw_notes"] = ". ".join(filter(None, (description["sw_notes"], *_notes(first))))
    return description


def _notes(run: RecordedRun) -> list[str]:
    """What a reader of the results must know about the model, its first weights and its data."""
    notes = []
    if run.config["width"] != 1:
        notes.append(f"Model of width {run.config['width']:g}: not the benchmark's")
    if not run.config["pretrained"]:
        notes.append("Trained from scratch, without a backbone")
    if (samples := run.log.values.get(constants.TRAIN_SAMPLES)) not in TRAIN_SAMPLES:
        notes.append(f"Trained on {samples} images: not COCO 2017")
    if run.log.values.get(constants.CACHE_CLEAR) is not True:
        notes.append("The machine's file caches were not dropped before the runs")
    if run.log.values.get(TEST_DATA):
        notes.append("Test data, no measured result")
    return notes


def _readme(name: str, runs: Sequence[RecordedRun], ruleset: str) -> str:
    first = runs[0]
    prepare = ["python3 prepare.py", f"--name {first.config['name']}"]
    command = ["python -m ssd campaign", f"--name {first.config['name']}", f"--config {first.config['config']}"]
    command.append(f"--runs {RESULTS}")
    for key, word in (("data_dir", "DATA"), ("backbone_path", "BACKBONE"), ("decoded_cache", "DECODED")):
        if first.origins.get(key, "").startswith(("command line", "environment")):
            prepare.append(f"--{key} {word}")
            command.append(f"--{key} {word}")
    given = [key for key, origin in first.origins.items() if origin.startswith("command line")]
    for key in given:
        if key in _without_places(first.config) and key not in ("name", "config"):
            command.append(f"--{key} {_argument(first.config[key])}")
    rows = [
        f"| result_{index}.txt | {run.log.values.get('seed')} | {run.log.status} | {_minutes(run)} | {_last(run)} |"
        for index, run in enumerate(runs)
    ]
    notes = "".join(f"\n**{note}.**\n" for note in _notes(first))
    return f"""# SSD300-ResNet34: {name}

{first.config["submitter"]}, {first.config["division"]} division, by the rules of ruleset {ruleset}. {NO_CURRENT_ROUND}
{notes}
## How to reproduce

Check out the code at the commit in `COMMIT`, install it as its README says, and run from `base/`:

    {" ".join(prepare)}
    {" ".join(command)}

`config.json` holds every key as the runs had it. Each run drew a seed of its own, which stands in its log.

## Results

| log | seed | status | minutes to train | last evaluation |
|---|---|---|---|---|
{chr(10).join(rows)}

The score is the mean without the fastest and the slowest. `python -m ssd package --check DIR` computes it, and runs the
official checkers.
"""


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    places = keys_of_roles(config, PLACE)
    return {key: value for key, value in config.items() if key not in places}


def _argument(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _minutes(run: RecordedRun) -> str:
    return "" if run.log.minutes is None else f"{run.log.minutes:.3f}"


def _last(run: RecordedRun) -> str:
    evaluations = run.summary.get("evaluations") or []
    return f"mAP {evaluations[-1][1]:.4f} after epoch {evaluations[-1][0]}" if evaluations else ""


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
