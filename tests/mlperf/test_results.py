"""Result logs of all rounds become rows; published ones have the published values."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ssd.errors import ConfigError, DataError
from ssd.mlperf.commands import results_command
from ssd.mlperf.notice import NOTICE, origin_of
from ssd.mlperf.records import read_records
from ssd.mlperf.result_table import as_csv, as_table
from ssd.mlperf.results import find_logs, read_result

# What two other programs wrote, in their own order of events, cut down to an evaluation or two; NVIDIA's results of one
# DGX-1 (round 0.7) and one DGX A100 (round 1.1). A row is key, milliseconds, value, and the epoch where it has one.
ROUND_0_7 = [
    ("submission_benchmark", 0, "ssd"), ("submission_org", 37, "NVIDIA"), ("submission_division", 38, "closed"),
    ("cache_clear", 5_918, True), ("init_start", 10_121, None), ("seed", 11_421, 4043767865),
    ("model_bn_span", 16_637, 120), ("global_batch_size", 16_637, 960), ("opt_base_learning_rate", 16_657, 0.0875),
    ("opt_learning_rate_decay_boundary_epochs", 16_657, [44, 55]), ("opt_weight_decay", 16_658, 1.6e-4),
    ("opt_learning_rate_warmup_steps", 16_658, 650), ("opt_learning_rate_warmup_factor", 16_658, 0),
    ("init_stop", 39_678, None), ("run_start", 39_686, None), ("train_samples", 42_304, 117_266),
    ("eval_samples", 42_602, 4_952), ("block_start", 42_602, None), ("block_stop", 1_024_805, None),
    ("eval_start", 1_031_797, None, 40), ("eval_accuracy", 1_031_798, 0.17556, 40), ("eval_stop", 1_031_798, None, 40),
    ("eval_start", 1_280_299, None, 50), ("eval_accuracy", 1_280_300, 0.23158, 50), ("eval_stop", 1_280_300, None, 50),
    ("run_stop", 1_280_606, None),
]  # fmt: skip
ROUND_1_1 = [
    ("submission_benchmark", 0, "ssd"), ("submission_org", 7, "NVIDIA"), ("submission_division", 7, "closed"),
    ("init_start", 8_719, None), ("seed", 9_200, 773493582), ("train_samples", 14_906, 117_266),
    ("opt_learning_rate_warmup_steps", 14_907, 642), ("opt_learning_rate_warmup_factor", 14_907, 0),
    ("opt_base_learning_rate", 14_907, 0.0899745), ("opt_learning_rate_decay_boundary_epochs", 14_907, [44, 55]),
    ("opt_weight_decay", 24_303, 1.3e-4), ("init_stop", 55_389, None), ("run_start", 55_389, None),
    ("model_bn_span", 56_648, 114), ("global_batch_size", 56_648, 912), ("tracked_stats", 64_371, {"loss": 9.3694}),
    ("eval_start", 104_631, None, 5), ("eval_stop", 106_776, None, 5), ("eval_accuracy", 106_776, 0.03684, 5),
    ("run_stop", 598_666, None), ("tracked_stats", 598_667, {"d_convergence": "55"}),
]  # fmt: skip


def write_log(path: Path, events: list[tuple]) -> Path:
    told = {"run_stop": {"status": "success"}, "block_start": {"first_epoch_num": 1, "epoch_count": 40}}
    more = [told.get(key, {"epoch_num": epoch[0]} if epoch else {}) for key, _, _, *epoch in events]
    lines = [line(key, ms, value, **metadata) for (key, ms, value, *_), metadata in zip(events, more, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_log_of_round_0_7(tmp_path: Path) -> None:
    result = read_result(write_log(tmp_path / "log.txt", ROUND_0_7))
    assert (result.submitter, result.division, result.status) == ("NVIDIA", "closed", "success")
    assert (result.global_batch, result.base_lr, result.weight_decay, result.bn_span) == (960, 0.0875, 1.6e-4, 120)
    assert (result.warmup_steps, result.warmup_factor, result.decay_epochs) == (650, 0, [44, 55])
    assert (result.time_to_train_min, result.init_min) == (20.682, 0.493)
    assert (result.epochs, result.final_map, result.first_eval_epoch) == (50, 0.23158, 40)
    assert result.evals == "40:0.17556 50:0.23158"
    assert round(result.images_per_s) == 4728, "117,266 images x 40 epochs in the 992.1 s before the first evaluation"


def test_a_log_of_round_1_1(tmp_path: Path) -> None:
    result = read_result(write_log(tmp_path / "log.txt", ROUND_1_1))
    assert (result.global_batch, result.base_lr, result.weight_decay, result.bn_span) == (912, 0.0899745, 1.3e-4, 114)
    assert (result.warmup_steps, result.warmup_factor, result.decay_epochs) == (642, 0, [44, 55])
    assert (result.time_to_train_min, result.init_min, result.evals) == (9.055, 0.778, "5:0.03684")
    assert round(result.images_per_s) == 11_907


def test_our_own_log_is_read_alike(tmp_path: Path, replay) -> None:
    replay(tmp_path / "result_0.txt", 0)
    result = read_result(tmp_path / "result_0.txt")
    assert result.time_to_train_min == pytest.approx(9.055, abs=1e-3)
    assert result.init_min == pytest.approx(0.778, abs=1e-3)
    assert (result.epochs, result.final_map, result.status, result.seed) == (55, 0.23282, "success", 773_493_582)
    assert result.images_per_s == pytest.approx(117_266 * 55 / (9.055 * 60), rel=1e-3)
    assert (result.width, result.precision, result.resumed) == (1.0, "fp16", False)


def line(key: str, ms: int, value: object = None, **metadata: object) -> str:
    record = {"namespace": "", "time_ms": ms, "event_type": "POINT_IN_TIME", "key": key, "value": value}
    return f":::MLLOG {json.dumps(record | {'metadata': metadata})}"


def test_the_quirks_of_the_rounds(tmp_path: Path) -> None:
    """Text around records, many ranks, two records on a line, a line cut off, missing keys, another encoding."""
    path = tmp_path / "log.txt"
    lines = [
        "srun: Job 460282 step creation temporarily disabled, retrying",
        "0: " + line("submission_benchmark", 0, "ssd"),
        *[f"{rank}: {line('init_start', 1000 + rank)}" for rank in range(8)],
        line("init_stop", 61_000) + line("run_start", 62_000),
        line("eval_accuracy", 100_000, 0.1, epoch_num=5) + " done",
        "café \x80",
        line("eval_accuracy", 200_000, "nan", epoch_num=10),
        line("run_stop", 182_000, status="aborted"),
        ':::MLLOG {"namespace": "", "time_',
    ]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    result = read_result(path)
    assert result.status == "aborted"
    assert (result.time_to_train_min, result.init_min) == (2.0, 1.0)
    assert (result.epochs, result.final_map) == (5, 0.1)
    assert result.images_per_s is None
    assert result.global_batch is None
    assert sum(record.key == "init_start" for record in read_records(path)) == 8


@pytest.mark.parametrize(
    ("keys", "status", "words"),
    [
        (["epoch_start", "eval_accuracy"], "success", "reached the target"),
        (["epoch_start", "eval_accuracy"], "aborted", "target not reached"),
        (["epoch_start", "eval_accuracy", "epoch_start"], "aborted", "ended early"),
        (["epoch_start"], "aborted", "ended early"),
        ([], "aborted", "ended early"),
        (["epoch_start", "eval_accuracy"], None, "no run_stop"),
    ],
)
def test_aborted_is_two_things_in_people_s_words(keys: list, status: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    lines = [line("submission_benchmark", 0, "ssd"), *(line(key, 1, 0.1, epoch_num=1) for key in keys)]
    path.write_text("\n".join(lines + ([line("run_stop", 9, status=status)] if status else [])))
    result = read_result(path)
    assert result.outcome == words
    (cell,) = list(as_table([result]).columns[-1].cells)
    assert cell == (f"aborted: {words}" if status == "aborted" else status or "unfinished")


def test_relative_and_absolute_paths_stand_in_one_table(folder: Path, capsys, monkeypatch) -> None:
    log = folder / "run_0" / "result_0.txt"
    monkeypatch.chdir(log.parent)
    assert results_command([Path(log.name), Path("..") / log.parent.name, folder.resolve()]) == 0
    assert log.name in capsys.readouterr().out


def test_a_log_without_run_stop_is_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(line("submission_benchmark", 0, "ssd") + "\n" + line("run_start", 5) + "\n")
    result = read_result(path)
    assert (result.status, result.time_to_train_min) == ("unfinished", None)


def test_the_speed_is_empty_where_the_order_of_events_makes_it_meaningless(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    first = line("submission_benchmark", 0, "ssd")
    evaluation = [line("eval_start", 4, epoch_num=5), line("eval_accuracy", 6, 0.1, epoch_num=5)]
    path.write_text("\n".join([first, *evaluation, line("run_start", 5)]))
    assert read_result(path).images_per_s is None


RUN = [("submission_benchmark", 0, "ssd"), ("train_samples", 0, 1000), ("run_start", 10_000, None)]


@pytest.mark.parametrize(
    ("evaluations", "rate"),
    [
        ([("eval_start", 20_000, None, 5), ("eval_accuracy", 21_000, 0.1, 5)], 500.0),
        ([("eval_start", 20_000, None, 5), ("eval_accuracy", 40_000, 0.1, 5)], 500.0),  # three times the whole run's
        ([("eval_start", 20_000, None, 5), ("eval_accuracy", 40_001, 0.1, 5)], None),
        ([("eval_start", 20_000, None, 5)], None),
        ([("eval_accuracy", 21_000, 0.1, 5)], None),
        ([("eval_start", 20_000, None), ("eval_accuracy", 21_000, 0.1, 5)], None),
        ([("eval_start", 20_000, None, 5), ("eval_accuracy", 21_000, 0.1)], None),
        ([("eval_start", 20_000, None, 5), ("eval_accuracy", 21_000, 0.1, 6)], None),
        ([("eval_start", 10_000, None, 5), ("eval_accuracy", 21_000, 0.1, 5)], None),
        ([("eval_start", 20_000, None, 5), ("eval_accuracy", 10_000, 0.1, 5)], None),
    ],
)
def test_the_rate_up_to_the_first_evaluation(tmp_path: Path, evaluations: list[tuple], rate: float | None) -> None:
    assert read_result(write_log(tmp_path / "log.txt", RUN + evaluations)).images_per_s == rate


@pytest.mark.parametrize(
    ("samples", "score", "doubt"),
    [
        (10**6, 0.1, ""),
        (10**6 + 1, 0.1, "no system trains 1,000,001 images/s"),
        (1000, 0.0, ""),
        (1000, 1.0, ""),
        (1000, 1.01, "mAP 1.01"),
        (1000, -0.01, "mAP -0.01"),
    ],
)
def test_what_cannot_be_true_of_a_row(tmp_path: Path, samples: int, score: float, doubt: str) -> None:
    events = [("submission_benchmark", 0, "ssd"), ("train_samples", 0, samples), ("run_start", 0, None)]
    events += [("epoch_start", 0, None, 1), ("epoch_stop", 1000, None, 1), ("eval_accuracy", 2000, score, 1)]
    assert read_result(write_log(tmp_path / "log.txt", events)).doubt == doubt


def test_a_resumed_run_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(line("submission_benchmark", 0, "ssd") + "\n" + line("ssd_resumed", 1, True) + "\n")
    assert read_result(path).resumed


@pytest.mark.parametrize("content", ["", "a text\n", line("submission_benchmark", 0, "bert")])
def test_a_file_that_is_no_ssd_log_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=r"log\.txt"):
        read_result(path)
    with pytest.raises(DataError, match="no MLPerf result log"):
        list(find_logs([tmp_path]))
    with pytest.raises(DataError, match="no such file"):
        list(find_logs([tmp_path / "absent"]))


@pytest.fixture
def folder(tmp_path: Path, replay) -> Path:
    for run in range(2):
        (tmp_path / f"run_{run}").mkdir()
        replay(tmp_path / f"run_{run}" / "result_0.txt", run)
    (tmp_path / "notes.txt").write_text("not a log\n")
    return tmp_path


def test_a_copy_of_a_log_is_no_second_run(folder: Path) -> None:
    for run in range(2):
        shutil.copyfile(folder / f"run_{run}" / "result_0.txt", folder / f"result_{run}.txt")
    assert [Path(name).name for _, name in find_logs([folder])] == ["result_0.txt", "result_1.txt"]


def test_json_is_a_flat_list(folder: Path, capsys) -> None:
    assert results_command([folder], json=True) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["file"]).parent.name for row in rows] == ["run_0", "run_1"]
    assert rows[0].keys() >= {"file", "time_to_train_min", "status", "epochs", "global_batch", "images_per_s"}
    assert rows[1]["epochs"] == 50
    assert {(row["round"], row["notice"]) for row in rows} == {("this benchmark", NOTICE)}
    assert [row["source"] for row in rows] == [str(folder / f"run_{run}" / "result_0.txt") for run in range(2)]


def test_csv_reads_back(folder: Path, capsys) -> None:
    assert results_command([folder], csv=True) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["epochs"] for row in rows] == ["55", "50"]
    assert {(row["round"], row["notice"]) for row in rows} == {("this benchmark", NOTICE)}
    assert as_csv([]).count("\n") == 1


def test_a_published_row_names_its_round_and_source(tmp_path: Path) -> None:
    """The path leads through a checkout of the round's repository; a log that was copied away says less."""
    inside = tmp_path / "training_results_v1.1" / "NVIDIA" / "results" / "dgxa100" / "ssd"
    inside.mkdir(parents=True)
    row = read_result(write_log(inside / "result_0.txt", ROUND_1_1))
    source = "https://github.com/mlcommons/training_results_v1.1/NVIDIA/results/dgxa100/ssd/result_0.txt"
    assert (row.round, row.division, row.source) == ("1.1", "closed", source)
    alone = write_log(tmp_path / "result_0.txt", ROUND_1_1)
    assert (read_result(alone).round, read_result(alone).source) == ("not said by the log", str(alone))
    assert origin_of(inside.parents[3], ours=False) == ("1.1", "https://github.com/mlcommons/training_results_v1.1")
    assert origin_of(inside, ours=True) == ("this benchmark", str(inside))


def test_one_place_holds_the_words(root: Path) -> None:
    """Other places only put a sentence about their rows beside them."""
    sources = (root / "base" / "ssd").rglob("*.py")
    holding = [path.name for path in sources if "verified by MLCommons" in path.read_text(encoding="utf-8")]
    assert holding == ["notice.py"]


def test_the_table_shows_what_a_reader_compares(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert results_command([folder]) == 0
    text = capsys.readouterr().out
    assert "run_0/result_0.txt" in text
    assert "9.05" in text
    assert "0.2328" in text
    assert str(folder) not in text


def test_the_cells_of_a_row(tmp_path: Path) -> None:
    usual = read_result(write_log(tmp_path / "log.txt", ROUND_0_7))
    rows = [
        usual,
        replace(usual, resumed=True, width=0.25),
        replace(usual, width=1.0, final_map=None, images_per_s=None),
    ]
    columns = as_table(rows).columns
    assert [column.header for column in columns] == [
        *("file", "system", "round", "division", "minutes", "epochs", "mAP", "images/s", "batch", "status")
    ]
    cells = [list(column.cells) for column in columns]
    assert cells[0] == ["log.txt"] * 3
    assert cells[2:] == [
        [""] * 3,
        ["closed"] * 3,
        ["20.68"] * 3,
        ["50"] * 3,
        ["0.2316", "0.2316", ""],
        ["4,728", "4,728", ""],
        ["960"] * 3,
        ["success", "success, resumed, width 0.25", "success"],
    ]


def test_a_row_stays_on_its_line_in_a_pipe(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert results_command([folder]) == 0
    rows, _, times = capsys.readouterr().out.partition("\n\n")
    *times, notice = times.splitlines()
    assert (len(rows.splitlines()), len(times)) == (3, 3), "a head and a line a log"
    assert notice == f"Computed from result logs. {NOTICE}"


def test_wrong_arguments_are_a_bad_configuration() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        results_command([Path("log")], csv=True, json=True)


# Logs of other hands


def test_an_evaluation_logged_when_queued_gives_no_rate(tmp_path) -> None:
    """Google's TPU logs: eval_start 60 ms after run_start, before any epoch is trained; epochs have no events."""
    log = tmp_path / "result_0.txt"
    lines = [
        '"time_ms": 1600000000000, "key": "submission_benchmark", "value": "ssd", "metadata": {}',
        '"time_ms": 1600000010000, "key": "run_start", "value": null, "metadata": {}',
        '"time_ms": 1600000010060, "key": "eval_start", "value": null, "metadata": {"epoch_num": 5}',
        '"time_ms": 1600000065700, "key": "eval_accuracy", "value": 0.24, "metadata": {"epoch_num": 5}',
        '"time_ms": 1600000066000, "key": "run_stop", "value": null, "metadata": {"status": "success"}',
    ]
    log.write_text("".join(f":::MLLOG {{{line}}}\n" for line in lines))
    row = read_result(log)
    assert row.images_per_s is None
    assert row.time_to_train_min == round(56 / 60, 3)
    assert row.doubt == ""


def test_the_steady_rate_is_that_of_the_median_epoch_from_the_third_on(tmp_path) -> None:
    log = tmp_path / "result_0.txt"
    text = ':::MLLOG {"time_ms": 0, "key": "submission_benchmark", "value": "ssd"}\n'
    text += ':::MLLOG {"time_ms": 0, "key": "train_samples", "value": 1000}\n'
    now = 0
    for epoch, seconds in enumerate((50, 20, 10, 10, 12), 1):
        for key in ("epoch_start", "epoch_stop"):
            entry = {"time_ms": now, "key": key, "metadata": {"epoch_num": epoch}}
            text += f":::MLLOG {json.dumps(entry)}\n"
            now += 1000 * seconds if key == "epoch_start" else 3000
    log.write_text(text)
    assert read_result(log).images_per_s == 100.0


def test_a_log_of_round_0_6_is_read(tmp_path) -> None:
    log = tmp_path / "result_0.txt"
    log.write_text(
        ':::MLL 0.0 submission_benchmark: {"value": "ssd", "metadata": {"lineno": 0, "file": "N/A"}}\n'
        ':::MLL 1560187600.000 run_start: {"value": null, "metadata": {"lineno": 1, "file": "a.py"}}\n'
        ':::MLL 1560187649.770 run_stop: {"value": null, "metadata": {"status": "success", "file": "a.py"}}\n'
    )
    row = read_result(log)
    assert (row.time_to_train_min, row.status) == (round(49.77 / 60, 3), "success")


def test_a_row_that_cannot_be_true_is_marked(tmp_path) -> None:
    log = tmp_path / "result_0.txt"
    entries = [(0, "submission_benchmark", "ssd"), (5000, "run_start", None), (5000, "run_stop", None)]
    log.write_text("".join(f":::MLLOG {json.dumps({'time_ms': t, 'key': k, 'value': v})}\n" for t, k, v in entries))
    row = read_result(log)
    assert row.doubt == "no time passes between run_start and run_stop"
    console = Console(record=True, width=300)
    console.print(as_table([row]))
    assert "cannot be true" in console.export_text()


def test_a_slow_rate_is_not_shown_as_none(tmp_path: Path) -> None:
    usual = read_result(write_log(tmp_path / "log.txt", ROUND_0_7))
    rates = [0.84, 9.96, 1234.5]
    columns = list(as_table([replace(usual, images_per_s=rate) for rate in rates]).columns)
    assert list(columns[7].cells) == ["0.8", "10.0", "1,234"]
