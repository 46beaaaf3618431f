"""The official checkers of mlperf-logging, called on a copy of a package. What they print is read as their verdict.

Some checkers exit with 0 whatever they find. One always returns False. Several end with an exception at a file that
they cannot read. The convergence checker writes scaling.json into the results. So each checker is called here as a
function, its messages are caught, an exception counts as a failure, and the package itself is never changed.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlperf_logging.compliance_checker import mlp_compliance
from mlperf_logging.compliance_checker.mlp_parser import parse_file
from mlperf_logging.package_checker import package_checker
from mlperf_logging.package_checker.seed_checker import SeedChecker
from mlperf_logging.rcp_checker import rcp_checker
from mlperf_logging.repo_checker import repo_checker
from mlperf_logging.result_summarizer import result_summarizer
from mlperf_logging.system_desc_checker import system_desc_checker

__all__ = [
    "Verdict",
    "check_compliance",
    "check_convergence",
    "check_names_and_sizes",
    "check_seeds",
    "check_system",
    "check_whole_package",
    "score",
    "time_to_train",
]


@dataclass(frozen=True)
class Verdict:
    """What one official checker says. messages: one line each. A checker that passes may still give warnings."""

    tool: str
    passed: bool
    messages: tuple[str, ...] = ()


def check_compliance(log: Path, ruleset: str) -> Verdict:
    """compliance_checker, on one result log."""

    def check() -> tuple[bool, list[str]]:
        mlp_compliance.enqueued_configs.clear()  # a check that crashed leaves its own there
        checker = mlp_compliance.make_checker("training", ruleset, quiet=False, werror=False)
        passed, *_ = mlp_compliance.main(str(log), f"training_{ruleset}/common.yaml", checker)
        complaints = [*checker.overwritable.values(), *checker.not_overwritable]
        return passed, [_brief(complaint) for complaint in complaints]

    return _call("compliance_checker", check)


def check_system(description: Path, ruleset: str) -> Verdict:
    """system_desc_checker, on one systems/NAME.json."""

    def check() -> tuple[bool, list[str]]:
        passed, *_ = system_desc_checker.check_system_desc(str(description), "training", ruleset)
        return passed, []

    return _call("system_desc_checker", check)


def check_seeds(logs: Sequence[Path], ruleset: str) -> Verdict:
    """seed_checker, on the logs of one system."""
    return _call("seed_checker", lambda: (SeedChecker(ruleset).check_seeds([str(log) for log in logs]), []))


def check_convergence(results: Path, ruleset: str) -> tuple[Verdict, float]:
    """rcp_checker, on a copied results folder. Returns the verdict and the factor of the score.

    The factor is above 1 where the runs needed fewer epochs than the reference.
    """

    def check() -> tuple[bool, list[str]]:
        passed, message, _ = rcp_checker.check_directory(
            str(results), "training", ruleset, False, False, rcp_pass="pruned_rcps", set_scaling=True
        )
        return passed, [message]

    verdict = _call("rcp_checker", check)
    scaling = results / "scaling.json"
    factor = float(json.loads(scaling.read_text())["scaling_factor"]) if scaling.exists() else 1.0
    scaling.unlink(missing_ok=True)  # the package checker would warn of it
    return verdict, factor


def check_whole_package(folder: Path, ruleset: str) -> Verdict:
    """package_checker, on a copied package. Only its last line says whether the package passes."""

    def check() -> tuple[bool, list[str]]:
        package_checker.check_training_package(str(folder), "training", ruleset, False, False, False, False, False, "-")
        return False, []

    return _call("package_checker", check, "PACKAGE CHECKER FOUND NO ERRORS")


def check_names_and_sizes(folder: Path) -> Verdict:
    """repo_checker: file names git dislikes, files over 50 MB, broken links. It returns False even when all is well."""
    return _call("repo_checker", lambda: (repo_checker.run_checks(str(folder)), []), "ALL CHECKS PASSED")


def time_to_train(log: Path, ruleset: str) -> float | str:
    """Minutes from run_start to run_stop as result_summarizer reads a log. A text says why it could not read it."""
    with _caught():
        try:
            records, failed = parse_file(str(log), ruleset=ruleset)
            if failed:
                return f"cannot parse the log: {failed[0]}"
            begin, end = result_summarizer._query_run_start_stop(records)
        except (Exception, SystemExit) as error:
            return f"stops at {type(error).__name__}: {error}"
    return (end - begin) / 60_000


def score(minutes: Sequence[float], dropped: int, factor: float) -> float:
    """The score of a system by result_summarizer's arithmetic. dropped: number of runs that did not converge."""
    return float(result_summarizer._compute_olympic_average(list(minutes), dropped, 1)) * factor


def _call(tool: str, check: Callable[[], tuple[bool, list[str]]], phrase: str | None = None) -> Verdict:
    """Run a checker. phrase: what it prints when a package passes, for checkers whose return value says nothing."""
    with _caught() as said:
        try:
            passed, messages = check()
        except (Exception, SystemExit) as error:
            return Verdict(tool, False, (f"it stopped at {type(error).__name__}: {error}",))
    lines = [line for level, line in said if level >= logging.WARNING]
    if phrase is not None:
        passed = any(phrase in line for _, line in said)
    return Verdict(tool, passed, tuple(messages or lines))


@contextlib.contextmanager
def _caught() -> Iterator[list[tuple[int, str]]]:
    """Catches what is logged at the root, warned or printed inside the block, as (level, text). Nothing is shown."""
    said: list[tuple[int, str]] = []
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [_Collect(said)]
    root.setLevel(logging.INFO)
    try:
        with (
            warnings.catch_warnings(record=True) as warned,
            contextlib.redirect_stdout(io.StringIO()) as printed,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("always")
            yield said
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        said += [(logging.WARNING, str(warning.message)) for warning in warned]
        said += [(logging.INFO, line) for line in printed.getvalue().splitlines() if line.strip()]


class _Collect(logging.Handler):
    def __init__(self, said: list[tuple[int, str]]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message as one line."""
        self._said.append((record.levelno, " ".join(record.getMessage().split())))


def _brief(complaint: str) -> str:
    """The compliance checker's message without the record and the state it quotes at length."""
    lines = complaint.strip().splitlines()
    tests = [line for line in lines[1:] if line.startswith("failed test:")]
    return " ".join([" ".join(lines[0].split())[:300], *tests])
