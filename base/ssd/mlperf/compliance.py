"""Is this package whole? The official checkers' verdicts and ours in one report, with the score a round would give.

`python -m ssd package --check DIR`. The package is only read: the official tools work on a copy. Exit code 0 means that
nothing was found but notes.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.errors import EXIT_BAD_DATA, EXIT_REACHED, DataError
from ssd.mlperf import official
from ssd.mlperf.checks import Finding, ResultLog, log_findings, read_log, set_findings
from ssd.mlperf.results import read_records
from ssd.mlperf.rules import DEFAULT_RULESET, NO_CURRENT_ROUND, RESULTS, need_ruleset
from ssd.mlperf.system import MAY_BE_EMPTY, field_problems, missing_fields

__all__ = ["CheckReport", "Score", "check_package"]

_BYPASSES = ("rcp-bypass", "seed-checker-bypass")


@dataclass(frozen=True)
class Score:
    """A system's score: minutes of each run (None: did not converge), their mean without the fastest and the slowest.

    factor: above 1 when the runs needed fewer epochs than the reference; the score has it already.
    """

    system: str
    minutes: tuple[float | None, ...]
    score: float
    factor: float = 1.0


@dataclass(frozen=True)
class CheckReport:
    """What was found in a package."""

    folder: Path
    ruleset: str
    findings: tuple[Finding, ...]
    scores: tuple[Score, ...]

    @property
    def passed(self) -> bool:
        """Nothing but notes."""
        return all(finding.note for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 when the package passes, else the code of bad data."""
        return EXIT_REACHED if self.passed else EXIT_BAD_DATA

    def __str__(self) -> str:
        lines = [f"{self.folder}, ruleset {self.ruleset}"]
        lines += [str(finding) for finding in sorted(_grouped(self.findings), key=lambda finding: finding.note)]
        for score in self.scores:
            runs = ", ".join("did not converge" if m is None else f"{m:.3f}" for m in score.minutes)
            scaled = f", with factor {score.factor:.4f} for convergence" if score.factor != 1 else ""
            lines.append(f"score of {score.system}: {score.score:.3f} minutes (runs: {runs}{scaled})")
        errors = sum(not finding.note for finding in self.findings)
        lines.append("PASS" if self.passed else f"FAIL: {errors} error{'s' if errors > 1 else ''}; no score counts")
        return "\n".join([*lines, NO_CURRENT_ROUND])


def _grouped(findings: Sequence[Finding]) -> list[Finding]:
    """What is found in several files, five logs mostly, as one line that names them all."""
    files: dict[Finding, list[str]] = defaultdict(list)
    for finding in findings:
        files[replace(finding, file="")].append(finding.file)
    return [
        replace(finding, file=", ".join([names[0], *(Path(name).name for name in names[1:])]))
        for finding, names in files.items()
    ]


def check_package(folder: Path, ruleset: str = DEFAULT_RULESET) -> CheckReport:
    """Run every check on a submitter's folder.

    Raises ConfigError for a ruleset without this model, DataError where there is no folder.
    """
    need_ruleset(ruleset)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    systems = sorted(path.name for path in (folder / "results").glob("*") if path.is_dir())
    findings = [*_layout_findings(folder, systems)]
    scores = []
    with tempfile.TemporaryDirectory(prefix="ssd-package-") as scratch:
        copy = Path(scratch) / "package"
        for part in ("systems", "results"):
            if (folder / part).is_dir():
                shutil.copytree(folder / part, copy / part)
        for system in systems:
            found, score = _check_system(folder, copy, system, ruleset)
            findings += found
            scores += [score] if score else []
        findings += _verdict(official.check_whole_package(copy, ruleset), ".") if systems else []
    findings += _verdict(official.check_names_and_sizes(folder), ".")
    if ruleset == "0.7.0":
        text = (
            "the round's official tools check logs and their number; seeds, system and convergence are checked by ours"
        )
        findings.append(Finding(".", "ruleset 0.7.0", text + " alone, and convergence by none", note=True))
    return CheckReport(folder, ruleset, tuple(dict.fromkeys(findings)), tuple(scores))


def _verdict(verdict: official.Verdict, file: str) -> list[Finding]:
    """An official checker's failure as findings; its warnings beside a pass are notes."""
    rule = f"official {verdict.tool}"
    messages = verdict.messages or (() if verdict.passed else ("failed",))
    return [Finding(file, rule, message, note=verdict.passed) for message in messages]


# The folder


def _layout_findings(folder: Path, systems: list[str]) -> Iterator[Finding]:
    rule = "layout"
    if not systems:
        yield Finding("results", rule, "holds no system: results/NAME/ssd/result_0.txt ... are expected")
    described = sorted(path.stem for path in (folder / "systems").glob("*.json"))
    for system in sorted(set(systems) - set(described)):
        text = f"is missing: the description's name is the results folder's ({', '.join(described) or 'there is none'})"
        yield Finding(f"systems/{system}.json", rule, text)
    for system in sorted(set(described) - set(systems)):
        yield Finding(f"systems/{system}.json", rule, f"describes a system without results/{system}")
    for system in systems:
        where = f"benchmarks/ssd/implementations/{system}"
        if not (folder / where / "README.md").is_file():
            yield Finding(where, rule, "README.md is missing: how to reproduce the results")
        yield from _results_layout(folder, system)


def _code_findings(folder: Path, system: str, closed: bool) -> Iterator[Finding]:
    """Whether COMMIT names code that others can have; a package that holds the code itself has no such file."""
    commit = folder / "benchmarks/ssd/implementations" / system / "COMMIT"
    said = commit.read_text(encoding="utf-8").strip() if commit.is_file() else None
    text = None
    if said in ("", "unknown"):
        text = "no commit was recorded: add the code, or run from a git checkout"
    elif said and said.endswith("+changed"):
        text = f"{said}: the runs' code differed from the commit; commit first, or add the code as it was"
    if text:
        yield Finding(str(commit.relative_to(folder)), "code is available", text, note=not closed)


def _results_layout(folder: Path, system: str) -> Iterator[Finding]:
    rule, where = "layout", f"results/{system}/ssd"
    wanted = {f"result_{index}.txt" for index in range(RESULTS)}
    present = {path.name for path in (folder / where).glob("*")}
    for name in sorted(wanted - present):
        yield Finding(f"{where}/{name}", rule, f"is missing: a score is made of exactly {RESULTS} results")
    for name in sorted(present - wanted - {"power", "package_checker_params"}):
        yield Finding(f"{where}/{name}", rule, f"does not belong here: only {min(wanted)} to {max(wanted)} do")
    for params in (f"results/{system}/package_checker_params", f"{where}/package_checker_params"):
        if not (folder / params).is_file():
            continue
        for line in (folder / params).read_text().splitlines(keepends=True):
            if line in _BYPASSES:
                yield Finding(params, "bypass", f"{line}: a review committee will look at these results", note=True)
            elif line.strip() in _BYPASSES:
                text = f"{line.strip()} has no effect: the official checker wants no line break behind it"
                yield Finding(params, "bypass", text)


# One system


def _check_system(folder: Path, copy: Path, system: str, ruleset: str) -> tuple[list[Finding], Score | None]:
    where = f"results/{system}/ssd"
    logs = [
        read_log(path, f"{where}/{path.name}")
        for path in sorted((folder / where).glob("result_*.txt"), key=lambda path: _number(path.stem))
    ]
    findings = [finding for log in logs for finding in log_findings(log, ruleset)] + set_findings(where, logs)
    findings += [finding for log in logs for finding in _compliance_findings(log, ruleset)]
    findings += _description_findings(folder, system, logs, ruleset)
    findings += [finding for log in logs for finding in _power_findings(folder / where, log)]
    closed = any(log.values.get(constants.SUBMISSION_DIVISION) == "closed" for log in logs)
    findings += _code_findings(folder, system, closed)
    factor = 1.0
    if closed and ruleset != "0.7.0" and logs:
        findings += _verdict(official.check_seeds([log.path for log in logs], ruleset), where)
        verdict, factor = official.check_convergence(copy / where, ruleset)
        findings += [] if verdict.passed else _verdict(verdict, where)
    return findings, _score(system, logs, factor)


def _number(stem: str) -> tuple[int, str]:
    match = re.search(r"\d+$", stem)
    return (int(match[0]) if match else 0, stem)


def _compliance_findings(log: ResultLog, ruleset: str) -> list[Finding]:
    """The compliance checker's complaints; that a run which says so did not converge is `set_findings`' matter."""
    verdict = official.check_compliance(log.path, ruleset)
    if log.status == constants.ABORTED and not verdict.passed:
        messages = tuple(m for m in verdict.messages if not m.startswith("Failed checks for eval_accuracy"))
        verdict = official.Verdict(verdict.tool, not messages, messages)
    return _verdict(verdict, log.name)


def _description_findings(folder: Path, system: str, logs: list[ResultLog], ruleset: str) -> Iterator[Finding]:
    path, name, rule = folder / "systems" / f"{system}.json", f"systems/{system}.json", "system description"
    if not path.is_file():
        return  # the layout's finding
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        yield Finding(name, rule, f"cannot be read: {error}")
        return
    if not isinstance(description, dict):
        yield Finding(name, rule, "is no JSON object")
        return
    for problem in field_problems(description):
        yield Finding(name, rule, problem)
    logged = {
        key: {log.values[key] for log in logs if isinstance(log.values.get(key), str)} for key in _LOGGED.values()
    }
    for field, key in _LOGGED.items():
        if logged[key] and logged[key] != {description.get(field)}:
            text = f"{field} is {description.get(field)!r}, but the logs say {key} {', '.join(sorted(logged[key]))}"
            yield Finding(name, rule, text)
    closed = "closed" in logged[constants.SUBMISSION_DIVISION]
    empty = [field for field in missing_fields(description) if field in description]
    if empty:
        text = f"not filled in: {', '.join(empty)} (write them here, or make the package with --field NAME=VALUE)"
        yield Finding(name, rule, text, note=not closed)
    widths = {log.values.get("ssd_width", 1) for log in logs} - {1}
    notes = " ".join(str(description.get(field, "")) for field in MAY_BE_EMPTY)
    if widths and "width" not in notes:
        yield Finding(name, rule, f"the model's width {min(widths):g} does not stand in hw_notes or sw_notes")
    yield from _verdict(official.check_system(path, ruleset), name)


_LOGGED = {
    "submitter": constants.SUBMISSION_ORG,
    "division": constants.SUBMISSION_DIVISION,
    "status": constants.SUBMISSION_STATUS,
}
"""Field of the description -> key of the log that says the same."""


def _power_findings(results: Path, log: ResultLog) -> Iterator[Finding]:
    """power/result_N/node_0.txt ...: a sample a second or more over the timed part, where there is power at all."""
    if not (results / "power").is_dir():
        return
    folder, rule = results / "power" / log.path.stem, "power"
    name = f"{Path(log.name).parent}/power/{log.path.stem}"
    nodes = sorted(folder.glob("node_*.txt"))
    if not nodes:
        yield Finding(name, rule, "node_0.txt is missing: power is measured in every run or in none")
    begin, end = log.times(constants.RUN_START), log.times(constants.RUN_STOP)
    for node in nodes:
        samples = [r.time_ms for r in read_records(node) if r.key == "power_reading"]
        moments = [*begin[:1], *(t for t in samples if begin and end and begin[0] < t < end[-1]), *end[-1:]]
        widest = max((later - earlier for earlier, later in pairwise(moments)), default=0)
        if widest > 1000:
            text = f"{widest / 1000:.1f} s pass without a sample in the timed part; one a second is the least"
            yield Finding(f"{name}/{node.name}", rule, text)


def _score(system: str, logs: list[ResultLog], factor: float) -> Score | None:
    """The mean of the converged runs without the fastest and, unless a failed one stands for it, the slowest."""
    minutes = tuple(log.minutes if log.status == constants.SUCCESS else None for log in logs)
    times: list[Any] = sorted(time for time in minutes if time is not None)
    if len(logs) != RESULTS or len(times) < RESULTS - 1:
        return None
    counted = times[1 : RESULTS - 1]
    return Score(system, minutes, sum(counted) / len(counted) * factor, factor)
