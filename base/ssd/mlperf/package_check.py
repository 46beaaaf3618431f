"""Checks a package: `python -m ssd package --check DIR`. One report has the official checkers' findings and ours.

The report also gives the score that a round would give. The package itself is only read: the official tools work on a
copy. Exit code 0 means that there are no findings but notes.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.errors import EXIT_BAD_DATA, EXIT_REACHED, DataError
from ssd.mlperf import official_tools
from ssd.mlperf.description import description_findings
from ssd.mlperf.evidence import config_findings, copy_findings, our_key_findings, overlap_findings
from ssd.mlperf.layout import implementation, layout_findings, regular_files, text_of
from ssd.mlperf.limits import DEFAULT_RULESET, NO_CURRENT_ROUND, RESULTS, need_ruleset
from ssd.mlperf.log_checks import log_findings, set_findings
from ssd.mlperf.logs import Finding, ResultLog, read_log
from ssd.mlperf.records import read_records

__all__ = ["CheckReport", "Score", "check_package"]


@dataclass(frozen=True)
class Score:
    """The score of a system. minutes: of each run, None where the run did not converge.

    score: mean of the minutes without the fastest and the slowest run, times `factor`. factor: above 1 when the runs
    needed fewer epochs than the reference.
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
        """Whether there are no findings but notes."""
        return all(finding.note for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 when the package passes, else the code of bad data."""
        return EXIT_REACHED if self.passed else EXIT_BAD_DATA

    def as_record(self) -> dict[str, Any]:
        """The report for a program: its verdict, each finding, and the scores, which count where it passed."""
        said = {"folder": str(self.folder), "ruleset": self.ruleset, "passed": self.passed}
        return {**said, "findings": list(map(asdict, self.findings)), "scores": list(map(asdict, self.scores))}

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
    """One finding in place of equal findings in several files (mostly the five logs). It names all files."""
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
    findings: list[Finding] = []
    scores = []
    every_log: list[ResultLog] = []
    with tempfile.TemporaryDirectory(prefix="ssd-package-") as scratch:
        copy = Path(scratch) / "package"
        findings += regular_files(folder, copy)
        systems = sorted(path.name for path in (copy / "results").glob("*") if path.is_dir())
        findings += layout_findings(copy, systems)
        for system in systems:
            found, score, logs = _check_system(copy, system, ruleset)
            findings += [_without(copy, finding) for finding in found]
            scores += [score] if score else []
            every_log += logs
        findings += copy_findings(every_log)
        if systems:
            findings += [_without(copy, f) for f in _verdict(official_tools.check_whole_package(copy, ruleset), ".")]
        findings += [_without(copy, f) for f in _verdict(official_tools.check_names_and_sizes(copy), ".")]
    if ruleset == "0.7.0":
        text = (
            "the round's official tools check logs and their number; seeds, system and convergence are checked by ours"
        )
        findings.append(Finding(".", "ruleset 0.7.0", text + " alone, and convergence by none", note=True))
    return CheckReport(folder, ruleset, tuple(dict.fromkeys(findings)), tuple(scores))


def _without(copy: Path, finding: Finding) -> Finding:
    """A finding with paths inside the package. The official tools name the files of the copy on which they work."""
    return replace(finding, message=finding.message.replace(f"{copy}/", ""))


def _verdict(verdict: official_tools.Verdict, file: str) -> list[Finding]:
    """The messages of an official checker as findings. They are notes where the checker passes."""
    rule = f"official {verdict.tool}"
    messages = verdict.messages or (() if verdict.passed else ("failed",))
    return [Finding(file, rule, message, note=verdict.passed) for message in messages]


# One system


def _check_system(folder: Path, system: str, ruleset: str) -> tuple[list[Finding], Score | None, list[ResultLog]]:
    """Findings, score and logs of one system.

    An error is what the round's own tools refuse, and what contradicts a package that this project made: one with its
    config.json, or with our keys in its logs. All else that is found in others' packages is a note.
    """
    where = f"results/{system}/ssd"
    logs = [
        read_log(path, f"{where}/{path.name}")
        for path in sorted((folder / where).glob("result_*.txt"), key=lambda path: _number(path.stem))
    ]
    config = _our_config(folder, system)
    ours = bool(config) or any(log.has_our_keys for log in logs)
    found = [finding for log in logs for finding in log_findings(log, ruleset)] + set_findings(where, logs)
    found += [*our_key_findings(logs, expected=bool(config)), *config_findings(logs, config)]
    found += description_findings(folder, system, logs)
    found += [finding for log in logs for finding in _power_findings(folder / where, log)]
    closed = any(log.values.get(constants.SUBMISSION_DIVISION) == "closed" for log in logs)
    found += _code_findings(folder, system, closed)
    findings = found if ours else [replace(finding, note=True) for finding in found]
    findings += overlap_findings(logs)
    findings += [finding for log in logs for finding in _compliance_findings(log, ruleset)]
    description = folder / "systems" / f"{system}.json"
    if description.is_file():
        findings += _verdict(official_tools.check_system(description, ruleset), f"systems/{system}.json")
    factor = 1.0
    if closed and ruleset != "0.7.0" and logs:
        findings += _verdict(official_tools.check_seeds([log.path for log in logs], ruleset), where)
        verdict, factor = official_tools.check_convergence(folder / where, ruleset)
        findings += [] if verdict.passed else _verdict(verdict, where)
    score = _score(system, logs, factor)
    findings += _score_findings(where, logs, score, ruleset)
    return findings, score, logs


def _our_config(folder: Path, system: str) -> dict[str, Any]:
    """The config.json that `package` writes beside the results; {} in a package that others made."""
    path = implementation(folder, system) / "config.json"
    try:
        content = json.loads(text_of(path)) if path.is_file() else {}
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and "train_batch_size" in content else {}


def _score_findings(where: str, logs: list[ResultLog], score: Score | None, ruleset: str) -> Iterator[Finding]:
    """Compares our times and score with the official summarizer's. A difference is a finding."""
    rule = "official result_summarizer"
    times = [official_tools.time_to_train(log.path, ruleset) for log in logs]
    for log, minutes in zip(logs, times, strict=True):
        if isinstance(minutes, str):
            yield Finding(log.name, rule, minutes)
        elif log.minutes is None or abs(minutes - log.minutes) > 1e-6:
            yield Finding(log.name, rule, f"reads {minutes:.3f} minutes, and this check {log.minutes}")
    if score is not None and all(isinstance(minutes, float) for minutes in times):
        pairs = zip(times, score.minutes, strict=True)
        converged = [theirs for theirs, ours in pairs if ours is not None and isinstance(theirs, float)]
        theirs = official_tools.score(converged, RESULTS - len(converged), score.factor)
        if abs(theirs - score.score) > 1e-6:
            yield Finding(where, rule, f"gives the score {theirs:.3f}, and this check {score.score:.3f}")


def _code_findings(folder: Path, system: str, closed: bool) -> Iterator[Finding]:
    """Whether COMMIT names code that others can get. A package that holds the code itself has no such file."""
    commit = implementation(folder, system) / "COMMIT"
    said = text_of(commit).strip() if commit.is_file() else None
    text = None
    if said in ("", "unknown"):
        text = "no commit was recorded: add the code, or run from a git checkout"
    elif said and said.endswith("+changed"):
        text = f"{said}: the runs' code differed from the commit; commit first, or add the code as it was"
    elif said and not re.fullmatch(r"[0-9a-f]{7,64}", said):
        text = f"{said[:80]!r} is no commit: letters a to f and digits are expected"
    if text:
        yield Finding(str(commit.relative_to(folder)), "code is available", text, note=not closed)


def _number(stem: str) -> tuple[int, str]:
    match = re.search(r"\d+$", stem)
    return (int(match[0]) if match else 0, stem)


def _compliance_findings(log: ResultLog, ruleset: str) -> list[Finding]:
    """The messages of the compliance checker. A run that says that it did not converge is left to `set_findings`."""
    verdict = official_tools.check_compliance(log.path, ruleset)
    if log.status == constants.ABORTED and not verdict.passed:
        messages = tuple(m for m in verdict.messages if not m.startswith("Failed checks for eval_accuracy"))
        verdict = official_tools.Verdict(verdict.tool, not messages, messages)
    return _verdict(verdict, log.name)


def _power_findings(results: Path, log: ResultLog) -> Iterator[Finding]:
    """Checks power/result_N/node_0.txt and so on, where a package has power logs: at least one sample a second."""
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
    """The mean of the converged runs without the fastest and the slowest. A failed run counts as the slowest."""
    minutes = tuple(log.minutes if log.status == constants.SUCCESS else None for log in logs)
    times: list[Any] = sorted(time for time in minutes if time is not None)
    if len(logs) != RESULTS or len(times) < RESULTS - 1:
        return None
    counted = times[1 : RESULTS - 1]
    return Score(system, minutes, sum(counted) / len(counted) * factor, factor)
