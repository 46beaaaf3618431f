"""What each page, table and file says that shows numbers of result logs, and where such a number comes from."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["NOTICE", "OURS", "PUBLISHED", "REPOSITORIES", "TRADEMARK", "UNKNOWN_ROUND", "origin_of"]

OURS = "this benchmark"
"""Stands for the round of a run of this project."""
UNKNOWN_ROUND = "not said by the log"
NOTICE = "Not verified by MLCommons. Runs of this project are results of this benchmark, not MLPerf results."
PUBLISHED = (
    "Published numbers were computed from the result logs of MLPerf Training's rounds, or are their owner's statement."
)
TRADEMARK = "MLPerf is a trademark of MLCommons."
REPOSITORIES = "https://github.com/mlcommons/training_results_v"
"""The public repository of a round's logs, followed by the round."""


def origin_of(path: Path, ours: bool) -> tuple[str, str]:
    """The round that a log or a folder of logs belongs to, and its source. ours: whether this project wrote the logs.

    A log does not say its round. The path does where it leads through a checkout of the round's repository.
    """
    found = re.search(r"training_results_v(\d\.\d)(?:/(.*))?$", str(path.resolve()))
    if ours or found is None:
        return OURS if ours else UNKNOWN_ROUND, str(path)
    return found[1], "/".join(filter(None, (f"{REPOSITORIES}{found[1]}", found[2])))
