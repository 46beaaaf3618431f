"""What is wrong with the system description of a package, and where it contradicts the logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.mlperf.keys import WIDTH
from ssd.mlperf.layout import text_of
from ssd.mlperf.logs import Finding, ResultLog
from ssd.mlperf.system import MAY_BE_EMPTY, field_problems, missing_fields

__all__ = ["description_findings"]


def description_findings(folder: Path, system: str, logs: list[ResultLog]) -> Iterator[Finding]:
    """Findings on systems/NAME.json of a package."""
    path, name, rule = folder / "systems" / f"{system}.json", f"systems/{system}.json", "system description"
    if not path.is_file():
        return  # the layout's finding
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(key for key, count in Counter(key for key, _ in items).items() if count > 1)
        return dict(items)

    try:
        description = json.loads(text_of(path), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        yield Finding(name, rule, f"cannot be read: {error}")
        return
    if not isinstance(description, dict):
        yield Finding(name, rule, "is no JSON object")
        return
    if twice:
        yield Finding(name, rule, f"has {', '.join(twice)} more than once: readers take the last")
    for problem in field_problems(description):
        yield Finding(name, rule, problem)
    logged = {
        key: {log.values[key] for log in logs if isinstance(log.values.get(key), str)} for key in _LOGGED.values()
    }
    for field, key in _LOGGED.items():
        if logged[key] and logged[key] != {description.get(field)}:
            text = f"{field} is {description.get(field)!r}, but the logs say {key} {', '.join(sorted(logged[key]))}"
            yield Finding(name, rule, text)
    if empty := [field for field in missing_fields(description) if field in description]:
        text = f"not filled in: {', '.join(empty)} (write them here, or make the package with --field NAME=VALUE)"
        yield Finding(name, rule, text, note=True)
    widths = {width for log in logs if isinstance(width := log.values.get(WIDTH, 1), int | float)} - {1}
    notes = " ".join(str(description.get(field, "")) for field in MAY_BE_EMPTY)
    if widths and "width" not in notes:
        yield Finding(name, rule, f"the model's width {min(widths):g} does not stand in hw_notes or sw_notes")


_LOGGED = {
    "submitter": constants.SUBMISSION_ORG,
    "division": constants.SUBMISSION_DIVISION,
    "status": constants.SUBMISSION_STATUS,
}
"""Field of the description -> key of the log that says the same."""
