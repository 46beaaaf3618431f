"""What a finished run left in its folder, as a campaign and a package read it.

result_0.txt    the result log                     config.json   every key: {"value": ..., "from": ...}
summary.json    exit code, seed, commit, speed     system.json   the machine, by the system description's fields
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd.config.keys import PACE, PLACE
from ssd.config.vendor_keys import keys_of_roles
from ssd.errors import EXIT_KILLED, EXIT_MEANING, EXIT_NOT_CONVERGED, EXIT_NOT_FINITE, EXIT_REACHED, DataError
from ssd.mlperf.keys import RESUMED
from ssd.mlperf.logs import ResultLog, read_log
from ssd.text import shortened

__all__ = ["RecordedRun", "config_fingerprint", "difference", "fixed_keys", "outcome", "read_run", "why_not_a_result"]

_NEEDED = {"name", "config", "submitter", "system", "division", "nodes", "nproc_per_node", "width", "pretrained"}
_NEEDED |= {"data_dir", "backbone_path"}
"""Keys of config.json that a package is made of."""
_HARDWARE = ("host_processor_model_name", "accelerator_model_name", "accelerators_per_node", "number_of_nodes")


@dataclass(frozen=True)
class RecordedRun:
    """A run's folder, read. config: key -> value; origins: key -> where the value came from."""

    folder: Path
    log: ResultLog
    config: Mapping[str, Any]
    origins: Mapping[str, str]
    summary: Mapping[str, Any]
    system: Mapping[str, str]

    @property
    def commit(self) -> str:
        """The code's commit; "" when it is not recorded."""
        return str(self.summary.get("commit") or "")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the run computes: see `config_fingerprint`."""
        return config_fingerprint(self.config)


def fixed_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values, without those in which the runs of one result may differ."""
    varying = keys_of_roles(config, PLACE, PACE)
    return {key: value for key, value in config.items() if key not in varying}


def config_fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 over `fixed_keys`."""
    return hashlib.sha256(json.dumps(fixed_keys(config), sort_keys=True, default=str).encode()).hexdigest()


def read_run(folder: Path) -> RecordedRun:
    """Read a run's folder. Raises DataError naming the file that is missing, or is not what a run writes."""
    resolved = _object(folder / "config.json")
    for key, entry in resolved.items():
        if not (isinstance(entry, dict) and "value" in entry and isinstance(entry.get("from"), str)):
            raise DataError(f"{folder / 'config.json'}: {shortened(key)} is not a value and where it came from")
    if missing := sorted(_NEEDED - resolved.keys()):
        raise DataError(
            f"{folder / 'config.json'} has no {', '.join(missing)}: it was changed, or is of another version"
        )
    log = folder / "result_0.txt"
    if not log.is_file():
        raise DataError(f"{log} is missing: this is no folder of a run")
    return RecordedRun(
        folder=folder,
        log=read_log(log, str(log)),
        config={key: entry["value"] for key, entry in resolved.items()},
        origins={key: entry["from"] for key, entry in resolved.items()},
        summary=_object(folder / "summary.json"),
        system=_object(folder / "system.json"),
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: a finished run leaves this file, and it cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a JSON object")
    return content


def outcome(code: Any) -> str:
    """An exit code in words, or what stands in place of one."""
    if code is not None and type(code) is not int:
        return f"its exit code is {shortened(repr(code))}, which is no number"
    if code is not None and code > EXIT_KILLED:
        return f"exit code {code}: killed by signal {code - EXIT_KILLED}"
    return f"exit code {code}: {EXIT_MEANING.get(-1 if code is None else code, 'not one of ours')}"


def why_not_a_result(run: RecordedRun) -> str | None:
    """Why a run is no result. None when it is one: it reached the target, or trained to its end, or diverged."""
    code = run.summary.get("exit_code")
    if code not in (EXIT_REACHED, EXIT_NOT_CONVERGED, EXIT_NOT_FINITE):
        return outcome(code)
    if run.summary.get("resumed") or run.log.values.get(RESUMED):
        return "it was resumed: a result is one run without a break"
    if run.log.status not in ("success", "aborted"):
        return "its log has no run_stop"
    return None


def difference(run: RecordedRun, first: RecordedRun) -> str | None:
    """Why two runs cannot belong to one result, in words that follow their names. None when they can."""
    if run.fingerprint != first.fingerprint:
        fixed, fixed_of_first = fixed_keys(run.config), fixed_keys(first.config)
        keys = [key for key in {**fixed_of_first, **fixed} if fixed.get(key) != fixed_of_first.get(key)]
        return f"are runs of different configs: {', '.join(keys)} differ"
    if run.commit and first.commit and run.commit != first.commit:
        return f"were made by different commits of the code: {run.commit} and {first.commit}"
    for field in _HARDWARE:
        if run.system.get(field) != first.system.get(field):
            return f"ran on different machines: {field} is {run.system.get(field)!r} and {first.system.get(field)!r}"
    return None
