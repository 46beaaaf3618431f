"""Result logs of all rounds become rows; published ones have the published values."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from ssd.errors import ConfigError, DataError
from ssd.mlperf.commands import results_command
from ssd.mlperf.results import as_csv, find_logs, read_records, read_result

LOG_ROWS = {  # file of published/logs -> system in published/ssd_results.csv
    "v0.7_NVIDIA_dgx1_0.txt": "dgx1_ngc20.06_pytorch",
    "v1.1_NVIDIA_dgxa100_0.txt": "dgxa100_ngc21.09_mxnet",
    "v1.1_NVIDIA_dgxa100_n8_0.txt": "dgxa100_n8_ngc21.09_mxnet",
}


@pytest.mark.parametrize("name", LOG_ROWS)
def test_a_published_log_has_the_published_values(shared: Path, name: str) -> None:
    with (shared / "published" / "ssd_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    round_ = name.split("_")[0].removeprefix("v")
    (row,) = (r for r in rows if (r["system"], r["run"], r["round"]) == (LOG_ROWS[name], "0", round_))
    result = read_result(shared / "published" / "logs" / name)
    assert result.submitter == row["submitter"]
    assert (result.division, result.status) == (row["division"], row["status"])
    assert result.global_batch == int(row["global_batch"])
    assert result.base_lr == float(row["base_lr"])
    assert result.weight_decay == float(row["weight_decay"])
    assert (result.warmup_steps, result.warmup_factor) == (int(row["warmup_steps"]), int(row["warmup_factor"]))
    assert result.decay_epochs == json.loads(row["decay"])
    assert result.bn_span == int(row["bn_span"])
    assert result.time_to_train_min == float(row["time_to_train_min"])
    assert result.init_min == float(row["init_min"])
    assert result.epochs == int(row["epochs_at_stop"])
    assert result.final_map == float(row["final_map"])
    assert result.first_eval_epoch == int(row["first_eval_epoch"])
    assert round(result.images_per_s) == int(row["images_per_s_before_first_eval"])
    assert result.evals == row["evals"]


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
    assert results_command([str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["file"]).parent.name for row in rows] == ["run_0", "run_1"]
    assert rows[0].keys() >= {"file", "time_to_train_min", "status", "epochs", "global_batch", "images_per_s"}
    assert rows[1]["epochs"] == 50


def test_csv_reads_back(folder: Path, capsys) -> None:
    assert results_command([str(folder), "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["epochs"] for row in rows] == ["55", "50"]
    assert as_csv([]).count("\n") == 1


def test_the_table_shows_what_a_reader_compares(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert results_command([str(folder)]) == 0
    text = capsys.readouterr().out
    assert "run_0/result_0.txt" in text
    assert "9.05" in text
    assert "0.2328" in text
    assert str(folder) not in text


def test_a_row_stays_on_its_line_in_a_pipe(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert results_command([str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_wrong_arguments_are_a_bad_configuration() -> None:
    with pytest.raises(ConfigError, match="--help"):
        results_command(["--csv"])
