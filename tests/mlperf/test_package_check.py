"""A package passes when it should, and each way to break one is caught, with the file and the rule named.

Packages here are a published result replayed through our writer; being test data is the one error an unbroken one has.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from mlperf_logging.result_summarizer import result_summarizer

from ssd.errors import ConfigError, DataError
from ssd.mlperf import evidence, log_checks, official_tools
from ssd.mlperf.logs import Finding, ResultLog
from ssd.mlperf.official_tools import check_compliance
from ssd.mlperf.package_check import CheckReport, Score, check_package
from ssd.mlperf.records import Record
from ssd.mlperf.system import FIELDS

TEST_DATA_RULE = "results are measured"


def errors(report: CheckReport) -> list[tuple[str, str, str]]:
    """(file's name, rule, message) of every error, that it is test data left out."""
    return [(Path(f.file).name, f.rule, f.message) for f in report.findings if not f.note and f.rule != TEST_DATA_RULE]


@pytest.mark.parametrize("ruleset", ["0.7.0", "1.0.0", "1.1.0"])
def test_a_replayed_result_passes_the_official_compliance_checker(tmp_path, replay, ruleset) -> None:
    replay(tmp_path / "result_0.txt", 0)
    verdict = check_compliance(tmp_path / "result_0.txt", ruleset)
    assert verdict.passed, verdict.messages


@pytest.mark.parametrize("ruleset", ["0.7.0", "1.0.0", "1.1.0"])
def test_a_whole_closed_package_has_no_error_but_that_it_is_test_data(closed_package, ruleset) -> None:
    report = check_package(closed_package.folder, ruleset)
    assert errors(report) == []
    assert [finding.rule for finding in report.findings if not finding.note] == [TEST_DATA_RULE] * 5
    assert not report.passed
    assert report.exit_code == DataError.exit_code


def test_a_whole_open_package_passes(open_package) -> None:
    for index in range(5):
        open_package.drop(index, "ssd_test_data")
    report = check_package(open_package.folder)
    assert report.passed, str(report)
    assert report.exit_code == 0


def test_the_report_in_words(closed_package) -> None:
    abort(closed_package, 1)
    report = check_package(closed_package.folder)
    *_, score, verdict, rounds = str(report).splitlines()
    # The fastest and the slowest, which did not converge, are left out of the mean.
    assert score == "score of dgxa100: 8.528 minutes (runs: 9.055, did not converge, 8.261, 8.205, 8.267)"
    assert verdict == "FAIL: 5 errors; no score counts"
    for index in range(5):
        closed_package.drop(index, "ssd_test_data")
    assert str(check_package(closed_package.folder)).splitlines()[-2:] == ["PASS", rounds]


def test_two_seeds_in_one_log_are_an_error(closed_package) -> None:
    def add(lines: list[str]) -> list[str]:
        place = next(number for number, line in enumerate(lines) if '"seed"' in line)
        return [*lines[: place + 1], re.sub(r'"value": \d+', '"value": 5', lines[place]), *lines[place + 1 :]]

    closed_package.edit(2, add)
    found = errors(check_package(closed_package.folder))
    assert ("result_2.txt", "seed", "2 seeds are logged for one run") in found


def test_what_a_reader_of_an_open_result_is_told(open_package) -> None:
    def notes() -> list[tuple[str, str]]:
        words = ("width", "caches", "training images")
        found = check_package(open_package.folder).findings
        return [(Path(f.file).name, f.message) for f in found if f.note and any(word in f.message for word in words)]

    assert notes() == []
    open_package.set(1, "ssd_width", 0.25)
    open_package.set(2, "cache_clear", False)
    open_package.set(3, "train_samples", 99_999)
    open_package.set(4, "train_samples", 100_000)
    (first, second, third) = notes()
    assert first == (
        "result_1.txt",
        "width 0.25: not the benchmark's model, so no time compares with a published one",
    )
    assert second == ("result_2.txt", "the machine's caches were not dropped before the run")
    assert third == ("result_3.txt", "99999 training images: not COCO 2017")


@pytest.mark.parametrize(("key", "other"), [("ssd_version", "9.9.9"), ("ssd_draws", 2)])
def test_results_of_two_versions_or_schemes_of_draws_are_no_package(open_package, key, other) -> None:
    open_package.set(1, key, other)
    found = [message for name, _, message in errors(check_package(open_package.folder)) if name == "result_1.txt"]
    assert any(message.startswith(f"{key} differs within ") for message in found)


def test_the_score_is_the_official_summarizers(closed_package) -> None:
    report = check_package(closed_package.folder)
    official, *_ = result_summarizer._compute_strong_score_standalone(
        "ssd", "dgxa100", False, str(closed_package.results), "training", "1.1.0"
    )
    assert report.scores[0].score == pytest.approx(official, rel=1e-12)
    assert report.scores[0].score == pytest.approx((8.247 + 8.261 + 8.267) / 3, abs=1e-4)


def test_one_run_may_fail_and_counts_as_the_slowest(closed_package) -> None:
    abort(closed_package, 1)
    report = check_package(closed_package.folder)
    assert errors(report) == []
    assert report.scores[0].minutes[1] is None
    official, *_ = result_summarizer._compute_strong_score_standalone(
        "ssd", "dgxa100", False, str(closed_package.results), "training", "1.1.0"
    )
    assert report.scores[0].score == pytest.approx(official, rel=1e-12)


def test_a_package_is_only_read(closed_package) -> None:
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in closed_package.folder.rglob("*") if path.is_file()}

    before = state()
    check_package(closed_package.folder)
    assert state() == before


def test_a_score_faster_than_the_reference_is_scaled(make_package, facts) -> None:
    # Batch 2048: reference 61.4 epochs, least mean 60.8. Results of 61 epochs pass, scaled by 61.4 / 61.
    package = make_package(facts=replace(facts, global_batch=2048, decay_epochs=(60, 75)))
    for index in range(5):
        package.records(index, lambda record: renumber(record, {50: 61, 55: 61}))
    written = package.results.stat().st_mtime_ns
    report = check_package(package.folder)
    # The convergence checker writes scaling.json: into a copy, from where it is gone before the package checker looks.
    assert package.results.stat().st_mtime_ns == written
    assert not [finding for finding in report.findings if "Unknown files" in finding.message]
    assert [rule for _, rule, _ in errors(report) if "rcp" in rule] == []
    assert report.scores[0].factor == pytest.approx(61.4 / 61)
    assert report.scores[0].score == pytest.approx((8.247 + 8.261 + 8.267) / 3 * 61.4 / 61, abs=1e-4)


def renumber(record: dict, epochs: dict[int, int]) -> None:
    if record["key"] in ("eval_start", "eval_accuracy", "eval_stop"):
        epoch = record["metadata"]["epoch_num"]
        record["metadata"]["epoch_num"] = epochs.get(epoch, epoch)


def abort(package, index: int) -> None:
    """Make a run one that trained all its epochs without reaching the target."""

    def change(record: dict) -> None:
        if record["key"] == "run_stop":
            record["metadata"]["status"] = "aborted"
        if record["key"] == "eval_accuracy" and record["value"] >= 0.23:
            record["value"] = 0.2299

    package.records(index, change)


def below_target(package) -> None:
    package.records(2, lambda r: r.update(value=0.2299) if r["key"] == "eval_accuracy" and r["value"] >= 0.23 else None)


def long_init(package) -> None:
    """31 minutes of set-up, in front of the rest."""
    package.records(2, lambda r: r.update(time_ms=r["time_ms"] - 31 * 60_000) if record_before_init_stop(r) else None)


def record_before_init_stop(record: dict) -> bool:
    return record["key"] in ("ssd_test_data", "cache_clear", "init_start") or record["key"].startswith("submission")


def join_two_records(lines: list[str]) -> list[str]:
    at = next(i for i, line in enumerate(lines) if '"global_batch_size"' in line)
    return [*lines[:at], lines[at] + lines[at + 1], *lines[at + 2 :]]


def swap(first: str, second: str) -> Callable[[list[str]], list[str]]:
    """Exchange the lines of two keys, not their times."""

    def change(lines: list[str]) -> list[str]:
        a, b = (next(i for i, line in enumerate(lines) if f'"key": "{key}"' in line) for key in (first, second))
        lines[a], lines[b] = lines[b], lines[a]
        return lines

    return change


def rename_results(package) -> None:
    package.results.parent.rename(package.results.parent.with_name("another"))


def shorten(package) -> None:
    """All runs reach the target one evaluation earlier than the reference: after 45 epochs."""
    for index in range(5):
        package.records(index, lambda r: renumber(r, {45: 44, 50: 45, 55: 46}))


def copy_with_new_seed(package) -> None:
    package.result(4).write_text(package.result(3).read_text().replace("773493585", "99"))


def power_without_samples(package) -> None:
    for index in range(5):
        folder = package.results / "power" / f"result_{index}"
        folder.mkdir(parents=True)
        (folder / "node_0.txt").write_text("")


def aborted_twice(package) -> None:
    abort(package, 1)
    abort(package, 2)


def second_run_stop(lines: list[str]) -> list[str]:
    return [*lines, lines[-1]]


def resume(package) -> None:
    package.edit(
        2,
        lambda lines: [
            *lines[:-1],
            lines[-1].replace('"run_stop", "value": null', '"ssd_resumed", "value": true'),
            lines[-1],
        ],
    )


R2, R4 = "result_2.txt", "result_4.txt"
MUTATIONS: dict[str, tuple[Callable, str, str]] = {
    # what is broken: (how, the file that is named, words of the rule or the message)
    "a required key is missing": (
        lambda p: p.drop(2, "gradient_accumulation_steps"),
        R2,
        "gradient_accumulation_steps",
    ),
    "no cache_clear": (lambda p: p.drop(2, "cache_clear"), R2, "cache_clear"),
    "no seed": (lambda p: p.drop(2, "seed"), R2, "no seed"),
    "no run_stop": (lambda p: p.drop(2, "run_stop"), R2, "run_stop"),
    "no evaluation": (lambda p: p.drop(2, "eval_accuracy"), R2, "eval_accuracy"),
    "an evaluation without its epoch": (
        lambda p: p.records(2, lambda r: r["metadata"].pop("epoch_num", None) if r["key"] == "eval_accuracy" else None),
        R2,
        "epoch_num",
    ),
    "a tensor is not initialised": (
        lambda p: p.records(2, lambda r: r["metadata"].get("tensor") != "ssd0_expand_conv4_bias"),
        R2,
        "initialized_tensors",
    ),
    "run_start before init_stop": (lambda p: p.edit(2, swap("run_start", "init_stop")), R2, "run_start"),
    "caches dropped after run_start": (lambda p: p.edit(2, swap("cache_clear", "block_start")), R2, "order of events"),
    "caches not dropped": (lambda p: p.set(2, "cache_clear", False), R2, "caches"),
    "epochs out of order": (
        lambda p: p.records(
            2, lambda r: r["metadata"].update(epoch_num=9) if r["metadata"].get("epoch_num") == 7 else None
        ),
        R2,
        "epochs",
    ),
    "a block that skips epochs": (
        lambda p: p.records(
            2, lambda r: r["metadata"].update(epoch_count=3) if r["metadata"].get("first_epoch_num") == 6 else None
        ),
        R2,
        "block begins with",
    ),
    "two records on a line": (lambda p: p.edit(2, join_two_records), R2, "one record a line"),
    "text behind a record": (lambda p: p.edit(2, lambda ls: [ls[0] + " done", *ls[1:]]), R2, "nothing behind a record"),
    "a record cut off": (lambda p: p.edit(2, lambda ls: [*ls[:9], ls[9][:40], *ls[10:]]), R2, "a record is JSON"),
    "two ends": (lambda p: p.edit(2, second_run_stop), R2, "a run ends once"),
    "an end of another kind": (
        lambda p: p.records(2, lambda r: r["metadata"].update(status="fine") if r["key"] == "run_stop" else None),
        R2,
        "success or aborted",
    ),
    "a repeated seed": (lambda p: p.set(2, "seed", 773_493_583), R2, "a seed of its own"),
    "a repeated seed, logged from another line": (
        lambda p: p.records(
            2,
            lambda r: (r.update(value=773_493_583), r["metadata"].update(lineno=1)) if r["key"] == "seed" else None,
        ),
        R2,
        "a seed of its own",
    ),
    "a seed that is text": (lambda p: p.set(2, "seed", "12"), R2, "no whole number"),
    "a run counted twice": (copy_with_new_seed, R4, "every result is another run"),
    "four results": (lambda p: p.result(2).unlink(), R2, "exactly 5 results"),
    "six results": (lambda p: p.result(5).write_text(p.result(4).read_text()), "result_5.txt", "does not belong"),
    "a stray file": (lambda p: (p.results / "scaling.json").write_text("{}"), "scaling.json", "does not belong"),
    "unequal batches": (lambda p: p.set(2, "global_batch_size", 1024), R2, "global_batch_size differs"),
    "unequal learning rates": (lambda p: p.set(2, "opt_base_learning_rate", 0.1), R2, "opt_base_learning_rate differs"),
    "second decay epoch off the rule": (
        lambda p: p.set(None, "opt_learning_rate_decay_boundary_epochs", [44, 56]),
        R2,
        "opt_learning_rate_decay_boundary_epochs",
    ),
    "first decay epoch off the rule, which no official tool tests": (
        lambda p: p.set(None, "opt_learning_rate_decay_boundary_epochs", [34, 45]),
        R2,
        "[40, 50] * (1 + k/10)",
    ),
    "decay epochs of two multiples": (
        lambda p: p.set(None, "opt_learning_rate_decay_boundary_epochs", [40, 55]),
        R2,
        "[40, 50] * (1 + k/10)",
    ),
    "another decay factor": (lambda p: p.set(None, "opt_learning_rate_decay_factor", 0.2), R2, "decay_factor"),
    "no warm-up": (lambda p: p.set(None, "opt_learning_rate_warmup_steps", 0), R2, "warmup_steps"),
    "another crop": (lambda p: p.set(None, "max_samples", 5), R2, "max_samples"),
    "another evaluation set": (lambda p: p.set(None, "eval_samples", 500), R2, "eval_samples"),
    "a batch beyond the reference": (lambda p: p.set(None, "global_batch_size", 8192), R2, "every result fails"),
    "a narrow model": (lambda p: p.set(None, "ssd_width", 0.25), R2, "ssd_width"),
    "another backbone": (lambda p: p.set(None, "ssd_backbone_sha256", "b627a593"), R2, "resnet34-333f7ec4"),
    "a resumed run": (resume, R2, "without a break"),
    "mAP 0.2299, which rounds to the target": (below_target, R2, "0.2299, unrounded"),
    "31 minutes of set-up": (long_init, R2, "length of set-up"),
    "two runs that did not converge": (aborted_twice, R2, "2 runs did not converge"),
    "faster than the reference can be": (shorten, "ssd", "rcp_checker"),
    "a number in the system description": (lambda p: p.describe(accelerators_per_node=8), "dgxa100.json", 'write "8"'),
    "a count that is no number": (
        lambda p: p.describe(accelerators_per_node="eight"),
        "dgxa100.json",
        "no whole number",
    ),
    "a field is absent": (lambda p: p.describe(cooling=None), "dgxa100.json", "cooling is absent"),
    "another submitter": (lambda p: p.describe(submitter="Somebody"), "dgxa100.json", "submission_org NVIDIA"),
    "another division": (lambda p: p.describe(division="open"), "dgxa100.json", "submission_division closed"),
    "folder and description differ in name": (rename_results, "another.json", "description's name"),
    "a commit that is not what ran": (
        lambda p: (p.folder / "benchmarks/ssd/implementations/dgxa100/COMMIT").write_text("c0ffee+changed\n"),
        "COMMIT",
        "commit first",
    ),
    "no commit": (
        lambda p: (p.folder / "benchmarks/ssd/implementations/dgxa100/COMMIT").write_text("unknown\n"),
        "COMMIT",
        "no commit was recorded",
    ),
    "a bypass that does not work": (
        lambda p: (p.results / "package_checker_params").write_text("rcp-bypass\n"),
        "package_checker_params",
        "no effect",
    ),
    "power measured too seldom": (power_without_samples, "node_0.txt", "without a sample"),
    "a file name that git dislikes": (lambda p: (p.folder / "systems/my notes.txt").write_text(""), ".", "my notes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", MUTATIONS)
def test_a_broken_closed_package_is_caught_with_file_and_rule(closed_package, broken: str) -> None:
    break_it, file, words = MUTATIONS[broken]
    break_it(closed_package)
    report = check_package(closed_package.folder)
    found = errors(report)
    assert any(name in (file, Path(file).name) and words in f"{rule} {message}" for name, rule, message in found), found
    assert report.exit_code != 0


OPEN_MUTATIONS: dict[str, tuple[Callable, str, str]] = {
    "an int in the system description": (lambda p: p.describe(number_of_nodes=1), "dgxa100.json", "no string"),
    "a resumed run": (resume, R2, "without a break"),
    "unequal batches, which no official tool compares here": (
        lambda p: p.set(2, "global_batch_size", 8),
        R2,
        "differs",
    ),
    "success below the target": (below_target, R2, "0.2299"),
    "a narrow model without a word of it": (lambda p: p.set(None, "ssd_width", 0.25), "dgxa100.json", "width 0.25"),
    "four results": (lambda p: p.result(2).unlink(), R2, "exactly 5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", OPEN_MUTATIONS)
def test_a_broken_open_package_is_caught_with_file_and_rule(open_package, broken: str) -> None:
    break_it, file, words = OPEN_MUTATIONS[broken]
    break_it(open_package)
    found = errors(check_package(open_package.folder))
    assert any(name == file and words in f"{rule} {message}" for name, rule, message in found), found


def test_the_open_division_asks_neither_for_seeds_nor_for_the_references_epochs(open_package) -> None:
    open_package.set(2, "seed", 773_493_583)
    shorten(open_package)
    assert errors(check_package(open_package.folder)) == []


@pytest.mark.parametrize(
    ("broken", "file", "words"),
    [("a repeated seed", R2, "a seed of its own"), ("a number in the system description", "dgxa100.json", 'write "8"')],
)
def test_0_7_0_is_checked_where_its_official_tools_look_away(closed_package, broken, file, words) -> None:
    MUTATIONS[broken][0](closed_package)
    report = check_package(closed_package.folder, "0.7.0")
    assert any(name == file and words in f"{rule} {message}" for name, rule, message in errors(report))
    assert "convergence by none" in str(report)


def test_20_minutes_of_set_up_are_too_long_for_0_7_0_alone(closed_package) -> None:
    def earlier(record: dict) -> None:
        if record_before_init_stop(record):
            record["time_ms"] -= 21 * 60_000

    closed_package.records(0, earlier)
    assert errors(check_package(closed_package.folder, "1.1.0")) == []
    assert any(rule == "length of set-up" for _, rule, _ in errors(check_package(closed_package.folder, "0.7.0")))


def test_power_sampled_every_second_passes(closed_package) -> None:
    for index in range(5):
        folder = closed_package.results / "power" / f"result_{index}"
        folder.mkdir(parents=True)
        times = [json.loads(line.removeprefix(":::MLLOG "))["time_ms"] for line in closed_package.result(index).open()]
        readings = [
            f':::MLLOG {{"time_ms": {ms}, "key": "power_reading", "value": 3000, "metadata": {{}}}}'
            for ms in range(min(times), max(times) + 1000, 900)
        ]
        (folder / "node_0.txt").write_text("\n".join(readings))
    assert errors(check_package(closed_package.folder)) == []


def test_a_bypass_that_works_is_said(closed_package) -> None:
    shorten(closed_package)
    (closed_package.results / "package_checker_params").write_text("rcp-bypass")
    report = check_package(closed_package.folder)
    assert any(finding.note and "review committee" in finding.message for finding in report.findings)


def test_a_later_ruleset_is_refused_with_the_reason(closed_package) -> None:
    with pytest.raises(ConfigError, match=r"from v2\.0 on"):
        check_package(closed_package.folder, "2.0.0")


def test_an_empty_folder_is_no_package(tmp_path) -> None:
    assert not check_package(tmp_path).passed
    with pytest.raises(DataError):
        check_package(tmp_path / "absent")


def test_there_are_33_fields() -> None:
    assert len(FIELDS) == len(set(FIELDS)) == 33


def test_the_report_says_that_no_current_round_takes_the_model(open_package) -> None:
    assert "No current MLPerf round" in str(check_package(open_package.folder))


# What rounds accept is a note; what contradicts a package of ours is an error


def notes(report) -> str:
    return "\n".join(str(finding) for finding in report.findings if finding.note)


def made_by_others(package) -> None:
    """A package as others make it: without this project's keys, which are what marks it as ours."""
    for index in range(5):
        package.records(index, lambda record: not record["key"].startswith("ssd_"))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda p: p.describe(cooling=""), "not filled in: cooling"),
        (lambda p: p.describe(other_software_stack=[{"cuda": "11"}]), "is no string"),
        (lambda p: p.describe(status="available"), "submission_status onprem"),
        (lambda p: (p.folder / "benchmarks/ssd/implementations/dgxa100/README.md").unlink(), "how to reproduce"),
        (lambda p: [p.result(n).rename(p.result(n + 1)) for n in (4, 3, 2, 1, 0)], "numbered result_1.txt"),
        (lambda p: p.records(0, lambda record: None), "width, backbone and target of its runs are not known"),
    ],
)
def test_what_rounds_accepted_is_a_note_in_others_packages(closed_package, break_it, said: str) -> None:
    made_by_others(closed_package)
    break_it(closed_package)
    report = check_package(closed_package.folder)
    assert report.passed, str(report)
    assert said in notes(report)


def test_a_second_run_start_is_found_and_the_score_is_the_official_one(closed_package) -> None:
    """Official time counts from the last run_start above run_stop: of 9.055 minutes 5.763 are left."""

    def twice(lines: list[str]) -> list[str]:
        at = next(n for n, line in enumerate(lines) if '"epoch_start"' in line and '"epoch_num": 21' in line)
        start = json.loads(lines[at].removeprefix(":::MLLOG "))
        record = start | {"key": "run_start", "event_type": "INTERVAL_START", "metadata": {}}
        return [*lines[:at], f":::MLLOG {json.dumps(record)}", *lines[at:]]

    for index in range(5):
        closed_package.edit(index, twice)
    report = check_package(closed_package.folder)
    assert [name for name, rule, message in errors(report) if "2 run_start" in message]
    (score,) = report.scores
    assert score.minutes[0] == pytest.approx(9.055 * 35 / 55, abs=1e-3)
    assert "summarizer" not in str(report)
    made_by_others(closed_package)
    again = check_package(closed_package.folder)
    assert again.scores == report.scores
    assert "2 run_start" in notes(again)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [line for line in lines if '"eval_stop"' not in line], "is out of place"),
        (lambda lines: [*lines, lines[-2].replace("run_stop", "eval_start")], "stands below run_stop"),
        (
            lambda lines: [out for line in lines for out in ([line] * 2 if '"eval_accuracy"' in line else [line])],
            "is out of place",
        ),
    ],
)
def test_events_have_their_places_in_our_logs(closed_package, change, said: str) -> None:
    closed_package.edit(1, change)
    assert any(said in message for _, _, message in errors(check_package(closed_package.folder)))


def shifted(package, source: int, target: int, by_ms: float, evaluations: bool = True) -> None:
    """Make one log a copy of another with its clock moved, its seed kept, and, if asked, other evaluations."""
    kept = package.result(target).read_text()
    seed = next(json.loads(line[9:])["value"] for line in kept.splitlines() if '"seed"' in line)
    package.result(target).write_text(package.result(source).read_text())

    def change(record: dict) -> None:
        record["time_ms"] += by_ms
        if record["key"] == "seed":
            record["value"] = seed
        if not evaluations and record["key"] == "eval_accuracy":
            record["value"] += 1e-5

    package.records(target, change)


@pytest.mark.parametrize("ours", [True, False])
def test_a_run_counted_twice_is_an_error_in_anybodys_package(closed_package, ours: bool) -> None:
    if not ours:
        made_by_others(closed_package)
    shifted(closed_package, 0, 3, 3_600_000, evaluations=False)
    report = check_package(closed_package.folder)
    assert any("same milliseconds between all events as result_0" in message for _, _, message in errors(report))


def test_the_same_evaluations_to_the_last_digit_are_one_run(closed_package) -> None:
    for index, last in ((0, 0.23171824455261230), (4, 0.23171824455261230)):
        values = iter([0.0, 0.1, 0.12, 0.15, 0.16, 0.17, 0.18, 0.19, 0.2, last, last])
        closed_package.records(
            index, lambda r, values=values: r.update(value=next(values)) if r["key"] == "eval_accuracy" else None
        )
    text = [message for _, rule, message in errors(check_package(closed_package.folder)) if "last digit" in message]
    assert text == []  # run 0 has one evaluation more, so the series differ
    closed_package.records(0, lambda r: not (r["key"] == "eval_accuracy" and r["metadata"].get("epoch_num") == 55))
    assert any("last digit" in m for _, _, m in errors(check_package(closed_package.folder)))


def test_the_same_runs_under_a_second_system_are_an_error(closed_package) -> None:
    for part in ("results", "benchmarks/ssd/implementations"):
        shutil.copytree(closed_package.folder / part / "dgxa100", closed_package.folder / part / "other")
    shutil.copy(closed_package.description, closed_package.description.with_name("other.json"))
    found = errors(check_package(closed_package.folder))
    assert sum("run_start at the same millisecond" in message for _, _, message in found) == 5


@pytest.mark.parametrize("key", ["ssd_width", "ssd_target_map", "ssd_backbone_sha256"])
def test_a_key_of_ours_that_one_log_lacks_is_an_error(closed_package, key: str) -> None:
    closed_package.drop(2, key)
    found = errors(check_package(closed_package.folder))
    assert any(name == "result_2.txt" and f"lacks {key}" in message for name, _, message in found)


def test_a_key_of_ours_logged_twice_is_an_error(open_package) -> None:
    def again(lines: list[str]) -> list[str]:
        line = next(line for line in lines if '"ssd_width"' in line)
        return [*lines, line.replace('"value": 1.0', '"value": 0.25')]

    open_package.edit(1, again)
    assert any("ssd_width more than once" in m for _, _, m in errors(check_package(open_package.folder)))


def test_all_keys_of_ours_gone_beside_our_config_is_an_error(open_package) -> None:
    config = open_package.folder / "benchmarks/ssd/implementations/dgxa100/config.json"
    config.write_text(json.dumps({"train_batch_size": 114, "width": 1.0, "threshold": 0.23}))
    made_by_others(open_package)
    assert any("lacks ssd_width" in m for _, _, m in errors(check_package(open_package.folder)))


def test_a_log_that_contradicts_the_packages_config_is_an_error_with_both_values(open_package) -> None:
    config = open_package.folder / "benchmarks/ssd/implementations/dgxa100/config.json"
    config.write_text(json.dumps({"train_batch_size": 114, "width": 0.25, "threshold": 0.23, "momentum": 0.9}))
    found = [m for _, rule, m in errors(check_package(open_package.folder)) if rule == "the log and config.json agree"]
    assert found == ["ssd_width is 1.0, but config.json has width 0.25"] * 5


@pytest.mark.parametrize(
    ("break_it", "said", "error"),
    [
        (lambda p: p.set(1, "opt_base_learning_rate", float("nan")), "opt_base_learning_rate is nan", True),
        (lambda p: p.set(1, "opt_base_learning_rate", -0.1), "is -0.1", True),
        (lambda p: p.set(None, "model_bn_span", 5000), "more than the batch", True),
        (lambda p: p.edit(0, lambda x: [x[0].replace('"ssd_test_data"', '"cache_clear"').replace("true", "false"), *x]),
         "as true and as false", True),
        (lambda p: p.records(0, lambda r: r["metadata"].update(status="aborted") if r["key"] == "run_stop" else None),
         "says aborted, but the last evaluation", True),
        (lambda p: [p.set(n, "eval_accuracy", 0.99) for n in range(5)], "more than this model can have", False),
        (lambda p: p.records(0, lambda r: r.update(time_ms=str(r["time_ms"]))), "which is no number", True),
        (lambda p: p.records(0, lambda r: r.update(metadata=[1])), "metadata is no JSON object", True),
        (lambda p: p.records(0, lambda r: r["metadata"].update(epoch_num={}) if r["key"] == "epoch_stop" else None),
         "epoch_stop does not count", True),
        (lambda p: p.records(0, lambda r: r.update(key=[1]) if r["key"] == "seed" else None), "which is no text", True),
        (lambda p: [p.records(n, lambda r: r.update(time_ms=r["time_ms"] / 1000)) for n in range(5)],
         "no time in milliseconds", False),
        (lambda p: (p.folder / "benchmarks/ssd/implementations/dgxa100/README.md").write_text(" \n"),
         "missing or empty", False),
        (lambda p: (p.folder / "benchmarks/ssd/implementations/dgxa100/COMMIT").write_text("latest\n"),
         "'latest' is no commit", None),
        (lambda p: p.description.write_text(p.description.read_text().replace("{", '{"cooling": "air", ', 1)),
         "cooling more than once", True),
    ],
)  # fmt: skip
def test_values_that_cannot_be(open_package, break_it, said: str, error: bool | None) -> None:
    """error: True for what contradicts a log of ours, False for what is merely implausible, None for either."""
    break_it(open_package)
    report = check_package(open_package.folder)
    found = [finding for finding in report.findings if said in finding.message]
    assert found, str(report)
    assert error is None or {not finding.note for finding in found} == {error}


def test_runs_at_the_same_time_are_a_note(open_package) -> None:
    open_package.records(1, lambda record: record.update(time_ms=record["time_ms"] - 999_000))
    report = check_package(open_package.folder)
    assert "result_1.txt: ran at the same time as result_0" in notes(report)


def test_whatever_lies_in_a_package_is_a_finding_and_no_traceback(open_package) -> None:
    folder, code = open_package.folder, open_package.folder / "benchmarks/ssd/implementations/dgxa100"
    (code / "COMMIT").write_bytes(b"\xff\xfe\x00")
    (open_package.results / "package_checker_params").write_bytes(b"\xff")
    open_package.result(0).unlink()
    open_package.result(0).mkdir()
    open_package.result(1).unlink()
    os.mkfifo(open_package.result(1))
    open_package.result(2).unlink()
    open_package.result(2).symlink_to("nowhere")
    (folder / "results" / "loop").symlink_to(folder)
    open_package.description.write_text("[" * 100_000 + "]" * 100_000)
    open_package.result(3).write_text(":::MLLOG " + "[" * 100_000 + "\n")
    report = check_package(folder)
    assert report.exit_code == DataError.exit_code
    text = str(report)
    for said in ("is a folder, not a result log", "is no regular file", "is a link to a folder", "cannot be read"):
        assert said in text


def test_a_link_out_of_the_package_is_said(open_package, tmp_path) -> None:
    outside = tmp_path / "outside.txt"
    open_package.result(0).rename(outside)
    open_package.result(0).symlink_to(outside)
    assert "leads out of the package" in notes(check_package(open_package.folder))


@pytest.mark.parametrize(
    ("name", "ruleset", "score"),
    [
        ("v1.1_NVIDIA_dgxa100_ngc21.09_mxnet", "1.1.0", 8.258),
        ("v1.1_Dell_R750xax4A100-PCIE-80GB", "1.1.0", 18.321),
        ("v1.1_Supermicro_SYS-420GP-TNAR", "1.1.0", 8.015),
        ("v1.0_Inspur_nf5488a5_mxnet", "1.0.0", 8.316),
    ],
)
def test_packages_that_rounds_accepted_pass_with_their_score(tmp_path, name: str, ruleset: str, score: float) -> None:
    """published_packages.zip: results as submitted to the rounds (Apache-2.0), each with a README of a line."""
    with zipfile.ZipFile(Path(__file__).with_name("published_packages.zip")) as archive:
        archive.extractall(tmp_path, [member for member in archive.namelist() if member.startswith(name)])
    report = check_package(tmp_path / name, ruleset)
    assert report.passed, str(report)
    assert report.scores[0].score == pytest.approx(score, abs=5e-4)


def test_what_the_official_seed_checker_says_is_a_finding(closed_package, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own check looks at more than that one, so that only a stand-in shows it is asked."""
    refused = official_tools.Verdict("seed_checker", False, ("a seed of no kind",))
    monkeypatch.setattr(official_tools, "check_seeds", lambda logs, ruleset: refused)
    assert ("ssd", "official seed_checker", "a seed of no kind") in errors(check_package(closed_package.folder))


def test_what_a_checker_warns_of_logs_or_prints_is_caught() -> None:
    def check() -> tuple[bool, list[str]]:
        warnings.warn("of old age", stacklevel=1)
        logging.getLogger("tool").error("of  two\nlines")
        print("and this")
        return True, []

    before = logging.getLogger().handlers[:]
    verdict = official_tools._call("tool", check)
    assert (verdict.tool, verdict.passed) == ("tool", True)
    assert sorted(verdict.messages) == ["of old age", "of two lines"]
    assert official_tools._call("tool", check, "and this").passed
    assert not official_tools._call("tool", check, "nothing of it").passed
    assert logging.getLogger().handlers == before


def test_a_span_of_the_whole_batch_is_none_too_much(closed_package) -> None:
    for span, said in ((912, False), (913, True)):
        closed_package.set(None, "model_bn_span", span)
        found = [message for _, _, message in errors(check_package(closed_package.folder))]
        assert (f"model_bn_span {span} is more than the batch, 912" in found) == said


# Single rules, on logs of a few records: each bound is met once and missed once


def log_of(*told: tuple, name: str = "results/a/ssd/result_0.txt") -> ResultLog:
    """A log of records (key, seconds, value, metadata), the last two where they say something, a line each."""
    records = []
    for line, (key, at, *rest) in enumerate(told, 1):
        value, metadata = [*rest, None, None][:2]
        records.append(Record(key, value, metadata or {}, 1000.0 * at, line))
    values: dict[str, object] = {}
    for record in records:
        values.setdefault(record.key, record.value)
    return ResultLog(name, Path(name), tuple(records), values)


def said(findings: Iterable[Finding]) -> list[str]:
    """Each finding as text, without the file."""
    return [str(one).replace(" results/a/ssd/result_0.txt: ", " ") for one in findings]


RUN = (("run_start", 10), ("run_stop", 90, None, {"status": "success"}))


@pytest.mark.parametrize(
    ("told", "findings"),
    [
        ([*RUN], []),
        ([*RUN, RUN[1]], ["ERROR 2 run_stop: a run ends once [order of events]"]),
        (
            [RUN[0], *RUN],
            ["ERROR 2 run_start: a run begins once, and its time is counted from the last [order of events]"],
        ),
        ([("a", 11), ("b", 10), *RUN], []),
        (
            [("a", 11.5), ("b", 10), ("c", 50), ("d", 10)],
            ["ERROR line 2: b is 1.5 s before the record above it [order of events]"],
        ),
        ([("cache_clear", 10), ("cache_clear", 11), *RUN], []),
        (
            [RUN[0], ("cache_clear", 10.001), RUN[1]],
            ["ERROR cache_clear stands after run_start: caches are dropped before a run [order of events]"],
        ),
        ([RUN[0], ("epoch_start", 10), ("epoch_stop", 90), ("opt_x", 9.5), RUN[1]], [
            "ERROR line 4: opt_x is 80.5 s before the record above it [order of events]"
        ]),
        (
            [("epoch_start", 9.5), ("eval_start", 9.6), *RUN],
            ["ERROR line 1: epoch_start lies outside run_start..run_stop [order of events]"],
        ),
        (
            [RUN[0], ("block_stop", 90.5), RUN[1]],
            ["ERROR line 2: block_stop lies outside run_start..run_stop [order of events]"],
        ),
        ([RUN[0], ("block_stop", 990)], []),
        ([("init_start", 0), ("init_start", 5), ("init_stop", 1799.999), ("run_start", 1799.999)], []),
        (
            [("init_start", 5), ("init_start", 4.5), ("init_stop", 9), ("init_stop", 1804.5), ("run_start", 1804.5)],
            ["ERROR set-up took 30.0 minutes of the 30 that are allowed [length of set-up]"],
        ),
        ([("init_start", 5), ("run_start", 9000)], []),
        ([("init_start", 0), ("init_stop", 9000)], []),
    ],
)  # fmt: skip
def test_the_order_and_the_times_of_a_log(told: list[tuple], findings: list[str]) -> None:
    assert said(log_checks._order_findings(log_of(*told), "1.1.0")) == findings


OUT = "is out of place: an evaluation is one eval_start, one eval_accuracy and one eval_stop [order of events]"


@pytest.mark.parametrize(
    ("keys", "findings"),
    [
        ("eval_start eval_accuracy eval_stop eval_start eval_stop eval_accuracy run_stop", []),
        ("eval_start eval_accuracy eval_start eval_stop", [f"ERROR line 3: eval_start {OUT}"]),
        ("eval_accuracy eval_stop", [f"ERROR line 1: eval_accuracy {OUT}"]),
        ("eval_start eval_stop eval_stop eval_stop", [f"ERROR line 3: eval_stop {OUT}"]),
        ("run_stop other", []),
        *(
            (f"run_stop {key} epoch_stop", [f"ERROR line 2: {key} stands below run_stop [order of events]"])
            for key in ("block_start", "epoch_start", "eval_start", "eval_accuracy", "run_start")
        ),
        ("run_stop run_stop", []),
    ],
)
def test_the_order_of_evaluations(keys: str, findings: list[str]) -> None:
    assert said(log_checks._evaluation_findings(log_of(*((key, 1) for key in keys.split())))) == findings


def epochs(key: str, *numbers: object) -> list[tuple]:
    return [(key, 1, None, {} if number is None else {"epoch_num": number}) for number in numbers]


def block(first: object, count: object) -> tuple:
    return ("block_start", 1, None, {"first_epoch_num": first, "epoch_count": count})


@pytest.mark.parametrize(
    ("told", "findings"),
    [
        ([*epochs("epoch_start", 1, 2), *epochs("epoch_stop", 1, 2), *epochs("eval_accuracy", 1, 2)], []),
        (epochs("epoch_start", 1, 3), ["ERROR epoch_start does not count 1, 2, 3, ...: 1, 3 [epochs]"]),
        (
            epochs("epoch_stop", *range(2, 11)),
            ["ERROR epoch_stop does not count 1, 2, 3, ...: 2, 3, 4, 5, 6, 7, 8, 9, ... [epochs]"],
        ),
        (
            epochs("epoch_stop", *range(2, 10)),
            ["ERROR epoch_stop does not count 1, 2, 3, ...: 2, 3, 4, 5, 6, 7, 8, 9 [epochs]"],
        ),
        ([block(1, 5), block(6, 2), block(8, 1)], []),
        ([block(1, 5), block(7, 2), block(99, 1)], ["ERROR line 2: a block begins with epoch 7, not 6 [epochs]"]),
        ([block(1, "5"), block(9, 2)], ["ERROR line 1: a block begins with epoch 1, not 1 [epochs]"]),
        (epochs("eval_accuracy", 5, 5), ["ERROR eval_accuracy's epoch_num does not grow: 5, 5 [epochs]"]),
        (epochs("eval_accuracy", 6, 5), ["ERROR eval_accuracy's epoch_num does not grow: 6, 5 [epochs]"]),
        (epochs("eval_accuracy", 5, None), ["ERROR eval_accuracy's epoch_num does not grow: 5, None [epochs]"]),
        (
            [*epochs("epoch_stop", 1, 2), *epochs("eval_accuracy", 1, 3)],
            ["ERROR epoch 3 was evaluated, but training stopped after 2 [epochs]"],
        ),
        (epochs("eval_accuracy", 3), []),
    ],
)
def test_the_epochs_of_a_log(told: list[tuple], findings: list[str]) -> None:
    assert said(log_checks._epoch_findings(log_of(*told))) == findings


def ended(status: object, *accuracies: object) -> ResultLog:
    stop = [] if status is None else [("run_stop", 1, None, {"status": status})]
    return log_of(*(("eval_accuracy", 1, one) for one in accuracies), *stop)


@pytest.mark.parametrize(
    ("log", "findings"),
    [
        (ended("success", 0, 0.23), []),
        (ended("success", 0.2299), [
            "ERROR run_stop says success, but the last evaluation reached 0.2299, unrounded, of 0.23 [target mAP]"
        ]),
        (ended("success", 0.25, 0.1), [
            "ERROR run_stop says success, but the last evaluation reached 0.1, unrounded, of 0.23 [target mAP]"
        ]),
        (ended("success"), [
            "ERROR run_stop says success, but the last evaluation reached nothing, unrounded, of 0.23 [target mAP]"
        ]),
        (ended("aborted", 0.1), []),
        (ended(None, 0.1), []),
        (ended("fine", 0.1), ["ERROR run_stop has status 'fine': it is success or aborted [status]"]),
        *(
            (ended("aborted", wrong, -1), [f"ERROR eval_accuracy {wrong!r} is no mAP between 0 and 1 [mAP]"])
            for wrong in (1, -0.1, True, "0.2", None)
        ),
    ],
)  # fmt: skip
def test_the_target_of_a_log(log: ResultLog, findings: list[str]) -> None:
    assert said(log_checks._target_findings(log)) == findings


@pytest.mark.parametrize(
    ("told", "findings"),
    [
        ([("seed", 1, 5), ("seed", 2, 5)], []),
        ([], ["ERROR no seed is logged [seed]"]),
        ([("seed", 1, 5), ("seed", 2, "6")], ["ERROR seed 5 is no whole number [seed]"]),
        ([("seed", 1, True)], ["ERROR seed True is no whole number [seed]"]),
        ([("seed", 1, 5), ("seed", 2, 6), ("seed", 3, 7)], ["ERROR 3 seeds are logged for one run [seed]"]),
        (
            [("cache_clear", 1, False), ("seed", 1, 5)],
            ["ERROR cache_clear is false: a closed result starts with the machine's caches dropped [closed division]"],
        ),
        ([("cache_clear", 1, True), ("seed", 1, 5)], []),
        (
            [("train_samples", 1, 5), ("train_samples", 1, 4), ("seed", 1, 5)],
            ["ERROR train_samples is logged as 4 and 5 [one value a run]"],
        ),
        ([("global_batch_size", 1, 8), ("global_batch_size", 1, 8), ("seed", 1, 5)], []),
    ],
)
def test_the_closed_division(monkeypatch: pytest.MonkeyPatch, told: list[tuple], findings: list[str]) -> None:
    """Without the limits of its hyper-parameters, which test_limits.py has."""
    monkeypatch.setattr(log_checks, "closed_violations", lambda values, ruleset: [])
    assert said(log_checks._closed_findings(log_of(*told), "1.1.0")) == findings


def test_one_log_by_the_rules_of_its_division(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_checks, "closed_violations", lambda values, ruleset: [f"a limit of {ruleset}"])
    path = tmp_path / "result_0.txt"
    path.write_text("")

    monkeypatch.setattr(log_checks, "value_findings", lambda log: iter(()))
    evaluation = (("eval_start", 20), ("eval_accuracy", 20, 0.3, {"epoch_num": 1}), ("eval_stop", 20))

    def of(*told: tuple) -> list[str]:
        log = log_of(*((key, 1, value) for key, value in told), RUN[0], *evaluation, RUN[1])
        return said(log_checks.log_findings(replace(log, path=path), "1.0.0"))

    resumed = "ERROR the run was resumed: a result is one run without a break, in the open division too [run result]"
    assert of() == []
    assert of(("ssd_resumed", True)) == [resumed]
    assert of(("ssd_test_data", True)) == [
        "ERROR the log is marked as test data: it is no result [results are measured]"
    ]
    assert of(("ssd_width", 0.5), ("cache_clear", False), ("train_samples", 99_999)) == [
        "note  width 0.5: not the benchmark's model, so no time compares with a published one [open division]",
        "note  the machine's caches were not dropped before the run [open division]",
        "note  99999 training images: not COCO 2017 [open division]",
    ]
    assert of(("ssd_width", 1), ("cache_clear", True), ("train_samples", 100_000)) == []
    assert of(("submission_division", "closed"), ("seed", 1), ("ssd_resumed", True)) == [
        "ERROR a limit of 1.0.0 [closed division]"
    ]


def test_the_lines_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    good = ':::MLLOG {"time_ms": 1, "key": "a", "metadata": null}'
    deep = ":::MLLOG " + "[" * 100_000
    lines = ["other output", good, f"[rank 0] {good}  ", good + good, ":::MLLOG {", f"{good} x", ":::MLLOG [1]"]
    path.write_text("\n".join([*lines, good.replace("1", "true"), good.replace("1", "1.5"), deep]))
    found = said(log_checks._line_findings(replace(log_of(), path=path)))
    assert found[:1] + found[2:-1] == [
        "ERROR line 4 holds 2 records: the official parsers drop all but the last [one record a line]",
        "ERROR line 6 goes on after its record [nothing behind a record]",
        "ERROR line 7: the record is no JSON object [fields of a record]",
        "ERROR line 8: time_ms is True, which is no number [fields of a record]",
    ]
    assert found[1].startswith("ERROR line 5 cannot be read: Expecting property name enclosed in double quotes")
    assert found[-1].startswith("ERROR line 10 cannot be read: ")


@pytest.mark.parametrize(
    ("entry", "odd"),
    [
        ({"time_ms": 1, "key": "a"}, ""),
        ({"time_ms": 1.5, "key": "a", "metadata": {}}, ""),
        ({"time_ms": "1", "key": "a"}, "time_ms is '1', which is no number"),
        ({"key": "a"}, "time_ms is None, which is no number"),
        ({"time_ms": 1, "key": 2}, "key is 2, which is no text"),
        ({"time_ms": 1, "key": "a", "metadata": []}, "metadata is no JSON object"),
        ([], "the record is no JSON object"),
    ],
)
def test_the_fields_of_a_record(entry: object, odd: str) -> None:
    assert log_checks._odd_fields(entry) == odd


def result(number: int, *told: tuple, status: str = "success") -> ResultLog:
    return log_of(*told, ("run_stop", 1, None, {"status": status}), name=f"results/a/ssd/result_{number}.txt")


def test_the_results_of_a_system_together() -> None:
    logs = [result(n, ("seed", 0, n), ("ssd_width", 0, 1.0 if n else 0.5)) for n in range(3)]
    assert [str(one) for one in log_checks.set_findings("here", logs)] == [
        "ERROR results/a/ssd/result_0.txt: ssd_width differs within here: 0.5 in result_0; 1.0 in result_1, result_2 "
        "[results are of one configuration]"
    ]
    one, two = result(0, status="aborted"), log_of(name="results/a/ssd/result_1.txt")
    assert [str(found) for found in log_checks.set_findings("here", [one, result(2)])] == [
        "note  results/a/ssd/result_0.txt: aborted: counts as the slowest of 5 and is dropped [convergence]"
    ]
    assert [str(found) for found in log_checks.set_findings("here", [one, two])] == [
        "ERROR results/a/ssd/result_0.txt: aborted: 2 runs did not converge, 1 may [convergence]",
        "ERROR results/a/ssd/result_1.txt: unfinished: 2 runs did not converge, 1 may [convergence]",
    ]
    for division, kind in (("open", "note "), ("closed", "ERROR")):
        same = [result(n, ("seed", 0, 7), ("submission_division", 0, division)) for n in (0, 1)]
        assert [str(found) for found in log_checks.set_findings("here", same)] == [
            f"{kind} results/a/ssd/result_1.txt: seed 7 as result_0 [a seed of its own for every run]"
        ]


VALUES = "[values that can be]"


@pytest.mark.parametrize(
    ("told", "findings"),
    [
        ([("opt_base_learning_rate", 1, 0), ("opt_weight_decay", 1, 0.0)], []),
        (
            [("opt_weight_decay", 1, -1e-9)],
            [f"ERROR opt_weight_decay is -1e-09: a number from 0 on is expected {VALUES}"],
        ),
        ([("opt_base_learning_rate", 1, None)], []),
        ([("model_bn_span", 1, 8), ("global_batch_size", 1, 8)], []),
        (
            [("model_bn_span", 1, 9), ("global_batch_size", 1, 8)],
            [f"ERROR model_bn_span 9 is more than the batch, 8 {VALUES}"],
        ),
        ([("model_bn_span", 1, "9"), ("global_batch_size", 1, 8)], []),
        ([("cache_clear", 1, True), ("cache_clear", 1, True), ("cache_clear", 1, [1])], []),
        (
            [("cache_clear", 1, True), ("cache_clear", 1, False)],
            [f"ERROR cache_clear is logged as true and as false {VALUES}"],
        ),
        (
            [("eval_accuracy", 1, 0.23), ("run_stop", 1, None, {"status": "aborted"})],
            [f"ERROR run_stop says aborted, but the last evaluation is 0.23 {VALUES}"],
        ),
        ([("eval_accuracy", 1, 0.229), ("run_stop", 1, None, {"status": "aborted"})], []),
        (
            [("ssd_target_map", 1, 0.5), ("eval_accuracy", 1, 0.4), ("run_stop", 1, None, {"status": "aborted"})],
            [],
        ),
        ([("train_samples", 1, 100_001), ("eval_accuracy", 1, 0.35)], []),
        ([("train_samples", 1, 100_000), ("eval_accuracy", 1, 0.9)], []),
        (
            [("train_samples", 1, 100_001), ("eval_accuracy", 1, 0.36), ("eval_accuracy", 1, 0.1)],
            [f"note  mAP 0.36 is more than this model can have on COCO 2017 (published: up to 0.24) {VALUES}"],
        ),
    ],
)
def test_values_that_no_run_can_have(monkeypatch: pytest.MonkeyPatch, told: list[tuple], findings: list[str]) -> None:
    monkeypatch.setattr(evidence, "_time_findings", lambda log, samples: iter(()))
    assert said(evidence.value_findings(log_of(*told))) == findings


def trained(seconds: float, epoch: object = 60) -> ResultLog:
    """A log from the year 2000 on: trained for `seconds`, evaluated after `epoch`."""
    start = 946_684_800
    evaluated = ("eval_accuracy", start, 0.2, {"epoch_num": epoch})
    return log_of(("run_start", start), evaluated, ("run_stop", start + seconds))


@pytest.mark.parametrize(
    ("log", "samples", "findings"),
    [
        (trained(600), 117_266, []),
        (trained(60), 1e6, []),  # a million images/s, and no more
        (
            trained(60),
            1e6 + 100,
            [f"note  1,000,100 images/s is more than any system trains (published: up to 384,479) {VALUES}"],
        ),
        (trained(60), None, []),
        (trained(60, None), 1e9, []),
        (trained(0), 1e9, [f"note  the timed part takes 0 minutes {VALUES}"]),
        (log_of(("a", 4_102_444_800)), 1, []),
        (
            log_of(("a", 1e9), ("b", 4_102_444_801)),
            1,
            [f"note  line 2: time_ms 4.10244e+12 is no time in milliseconds since 1970 {VALUES}"],
        ),
        (
            log_of(("a", 946_684_799)),
            1,
            [f"note  line 1: time_ms 9.46685e+11 is no time in milliseconds since 1970 {VALUES}"],
        ),
    ],
)
def test_times_that_no_run_can_have(log: ResultLog, samples: float | None, findings: list[str]) -> None:
    assert said(evidence._time_findings(log, samples)) == findings


def test_keys_of_ours_that_logs_lack_or_have_twice() -> None:
    logs = [
        log_of(("ssd_width", 1), ("ssd_target_map", 1), ("ssd_resumed", 1)),
        log_of(("ssd_width", 1), ("ssd_width", 1)),
    ]
    rule = "[our logs have all of our keys]"
    assert said(evidence.our_key_findings(logs)) == [
        f"ERROR lacks ssd_target_map, which the other logs or config.json have {rule}",
        f"ERROR has ssd_width more than once {rule}",
    ]
    others = [log_of(("seed", 1))]
    assert said(evidence.our_key_findings(others, expected=True)) == [
        f"ERROR lacks ssd_width, ssd_target_map, which the other logs or config.json have {rule}"
    ]
    assert said(evidence.our_key_findings(others)) == [
        f"note  results/a/ssd: has no key of this project: width, backbone and target of its runs are not known {rule}"
    ]
    assert said(evidence.our_key_findings([])) == []


@pytest.mark.parametrize(
    ("begin", "end", "overlaps"), [(1, 10, False), (1, 10.5, True), (20, 30, False), (19.5, 30, True), (12, 15, True)]
)
def test_runs_that_overlap(begin: float, end: float, overlaps: bool) -> None:
    one = log_of(("run_start", 10), ("run_start", 11), ("run_stop", 15), ("run_stop", 20), name="result_0.txt")
    logs = [one, log_of(("run_start", begin), ("run_stop", end), name="result_1.txt"), log_of(("run_start", 12))]
    text = "note  result_1.txt: ran at the same time as result_0: on one machine that is impossible "
    expected = [text + "[runs one after the other]"] if overlaps else []
    assert [str(one) for one in evidence.overlap_findings(logs)] == expected


def test_the_whole_report_in_words_and_as_a_record(tmp_path: Path) -> None:
    errors = [Finding(f"results/a/result_{n}.txt", "seed", "no seed is logged") for n in (0, 1)]
    findings = (Finding("b", "rule", "worth knowing", note=True), *errors)
    scores = (Score("a", (1.5, None), 1.25, 1.5), Score("b", (2.0,), 2.0))
    report = CheckReport(Path("here"), "1.1.0", findings, scores)
    assert str(report).splitlines()[:-1] == [
        "here, ruleset 1.1.0",
        "ERROR results/a/result_0.txt, result_1.txt: no seed is logged [seed]",
        "note  b: worth knowing [rule]",
        "score of a: 1.250 minutes (runs: 1.500, did not converge, with factor 1.5000 for convergence)",
        "score of b: 2.000 minutes (runs: 2.000)",
        "FAIL: 2 errors; no score counts",
    ]
    assert report.as_record() == {
        "folder": "here",
        "ruleset": "1.1.0",
        "passed": False,
        "findings": [
            {"file": one.file, "rule": one.rule, "message": one.message, "note": one.note} for one in findings
        ],
        "scores": [
            {"system": "a", "minutes": (1.5, None), "score": 1.25, "factor": 1.5},
            {"system": "b", "minutes": (2.0,), "score": 2.0, "factor": 1.0},
        ],
    }
    single = replace(report, findings=findings[:2], scores=())
    assert "FAIL: 1 error; no score counts" in str(single)
    good = replace(report, findings=findings[:1])
    assert (good.passed, good.exit_code, good.as_record()["passed"]) == (True, 0, True)
