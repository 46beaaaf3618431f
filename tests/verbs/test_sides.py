"""What `compare` is given: every kind of side is read, by what it is; published rows by name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ssd import cli
from ssd.errors import ConfigError, DataError
from ssd.mlperf.attempts import Attempt, State
from ssd.report.side_by_side import OURS
from ssd.verbs.sides import read_sides


def event(key: str, value: Any = None, time_ms: float = 0, **metadata: Any) -> str:
    content = {"key": key, "value": value, "time_ms": time_ms, "event_type": "POINT_IN_TIME", "metadata": metadata}
    return f":::MLLOG {json.dumps(content)}\n"


def log(path: Path, minutes: float, *, ours: bool = True, images: int = 117_266, system: str = "sys") -> Path:
    """A result log of 2 epochs that reached the target after `minutes`; a steady epoch takes half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = minutes * 30_000
    lines = [
        event("submission_benchmark", "ssd"),
        event("submission_org", "org"),
        event("submission_platform", system),
        event("submission_division", "open"),
        event("train_samples", images),
        event("global_batch_size", 32),
        *([event("ssd_width", 1.0)] if ours else []),
        event("run_start"),
        *(
            line
            for epoch in (1, 2)
            for line in (
                event("epoch_start", None, (epoch - 1) * half, epoch_num=epoch),
                event("epoch_stop", None, epoch * half, epoch_num=epoch),
            )
        ),
        event("eval_accuracy", 0.24, 2 * half, epoch_num=2),
        event("run_stop", None, 2 * half, status="success"),
    ]
    path.write_text("".join(lines))
    return path


def run(folder: Path, minutes: float, **config: Any) -> Path:
    """A run's folder."""
    log(folder / "result_0.txt", minutes)
    values = {"nproc_per_node": 2, "nodes": 2, "seed": 1, **config}
    (folder / "config.json").write_text(json.dumps({key: {"value": one, "from": "x"} for key, one in values.items()}))
    (folder / "system.json").write_text(json.dumps({"accelerator_model_name": "card", "cooling": ""}))
    (folder / "summary.json").write_text(json.dumps({"account": {"parts": {"imports": 3.0, "data_wait": 1.0}}}))
    return folder


def test_a_run(tmp_path: Path) -> None:
    (side,) = read_sides([str(run(tmp_path / "mine", 4.0, log_freq=5))])
    assert (side.name, side.runs, side.reached, side.minutes, side.epochs) == ("mine", 1, 1, [4.0], [2.0])
    assert side.rates == [pytest.approx(117_266 / 120, rel=1e-3)]
    assert side.devices == 4
    assert side.account["a steady epoch"] == [120.0]
    assert side.account["  data wait"] == [1.0], "finer parts, of a run of ours"
    assert side.machine == {"accelerator_model_name": "card"}
    assert side.config["log_freq"] == "5"
    assert "seed" not in side.config
    assert (side.round, side.task) == (OURS, "")


def test_a_campaign_is_its_runs_that_count(tmp_path: Path) -> None:
    attempts = []
    for number, (minutes, outcome) in enumerate([(4.0, "counts"), (9.0, "failed"), (5.0, "counts")]):
        run(tmp_path / f"run_{number}", minutes, num_workers=number)
        attempts.append(Attempt(f"run_{number}", number, outcome))
    (tmp_path / "campaign.json").write_text(json.dumps(asdict(State({}, attempts, None))))
    (side,) = read_sides([str(tmp_path)])
    assert (side.runs, side.minutes) == (2, [4.0, 5.0])
    assert side.config["num_workers"] == "0 / 2"
    assert side.account["  imports"] == [3.0, 3.0]


def test_a_package_is_a_side_for_each_system(tmp_path: Path) -> None:
    for system in ("one", "two"):
        for number in range(2):
            log(tmp_path / "results" / system / "ssd" / f"result_{number}.txt", 3.0 + number, ours=False, system=system)
    (tmp_path / "systems").mkdir()
    described = {"accelerators_per_node": "8", "number_of_nodes": "2", "accelerator_model_name": "card"}
    (tmp_path / "systems" / "one.json").write_text(json.dumps(described))
    one, two = read_sides([str(tmp_path)])
    assert (one.minutes, one.devices, two.devices) == ([3.0, 4.0], 16, None)
    assert one.machine["accelerator_model_name"] == "card"
    assert one.round == "not said by the log", "it has no key of ours"


def test_a_log_alone_and_another_task(tmp_path: Path) -> None:
    (side,) = read_sides([str(log(tmp_path / "any.txt", 2.0, images=64))])
    assert side.task == "64 images"
    assert side.devices is None


def test_a_log_of_a_clone_of_a_round_s_results_knows_its_round(tmp_path: Path) -> None:
    path = log(tmp_path / "training_results_v1.0" / "X" / "results" / "sys" / "ssd" / "result_0.txt", 2.0, ours=False)
    assert read_sides([str(path)])[0].round == "1.0"


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("dgxa100_ngc21.09_mxnet", ["1.1 NVIDIA dgxa100_ngc21.09_mxnet"]),
        ("DGXA100_NGC21.09_MXNET", ["1.1 NVIDIA dgxa100_ngc21.09_mxnet"]),
        ("1.0 nvidia", ["1.0 NVIDIA dgxa100_n128_ngc21.05_mxnet", "1.0 NVIDIA dgxa100_ngc21.05_mxnet"]),
        ("nf5488a5_mxnet", ["1.0 Inspur nf5488a5_mxnet", "1.1 Inspur nf5488a5_mxnet"]),
        ("8 x BI-V100", ["DeepSparkHub 8 x BI-V100"]),
        ("bi-v100", ["DeepSparkHub 8 x BI-V100"]),
    ],
)
def test_published_systems_by_name_round_submitter_and_chip(word: str, names: list[str]) -> None:
    assert [side.name for side in read_sides([word])] == names


def test_a_published_system_that_two_words_name_is_one_side() -> None:
    both = read_sides(["1.1 NVIDIA", "1.1 A100"])
    assert [one.name for one in both[:3]] == [one.name for one in read_sides(["1.1 NVIDIA"])]
    assert sorted(one.name for one in both) == sorted(one.name for one in read_sides(["1.1 A100"]))


def test_published_numbers_are_those_of_the_files() -> None:
    (bi,) = read_sides(["8 x BI-V100"])
    assert bi.rates[0] == pytest.approx(2858, abs=1)
    assert bi.source == "DeepSparkHub's statement"
    (dgx,) = read_sides(["dgxa100_ngc21.09_mxnet"])
    assert dgx.device_rates[0] == pytest.approx(1525.6, abs=0.1)
    assert (dgx.round, dgx.division, dgx.runs, dgx.devices) == ("1.1", "closed", 5, 8)
    assert dgx.minutes == pytest.approx([9.055, 8.247, 8.262, 8.205, 8.267], abs=0.001)
    assert dgx.epochs == [56, 51, 51, 51, 51]
    assert dgx.account == {
        "start": [1.26],
        "first epoch's excess": [0.34],
        "a steady epoch": [pytest.approx(9.6, abs=0.1)],
    }
    assert dgx.source == "https://github.com/mlcommons/training_results_v1.1"
    assert len(read_sides(["A100"])) > 25


def test_what_names_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file or folder, and no published.*Did you mean 'dgxa100_ngc"):
        read_sides(["dgxa100_ngc21.08_mxnet"])
    with pytest.raises(ConfigError, match="no such file"):
        read_sides([" "])
    with pytest.raises(DataError):
        read_sides([str(tmp_path)])


def test_the_verb_prints_tables_a_page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", str(run(tmp_path / "mine", 4.0)), str(run(tmp_path / "other", 5.0, momentum=0.8)), "BI-V100"]
    assert cli.main([*words, "--html", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert "B other" in said
    assert "1.250 (n 1 and 1: no interval)" in said
    assert "Not verified by MLCommons" in " ".join(said.split())
    assert "DeepSparkHub" in (tmp_path / "page.html").read_text()
    assert cli.main([*words, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [one["letter"] for one in content["sides"]] == ["A", "B", "C"]
    assert content["sides"][1]["divided_by_first"]["minutes"]["middle"] == 1.25
    for wrong in (["--tolerance", "0.1"], ["--assert-equal", "--html", str(tmp_path / "x")]):
        assert cli.main([*words[:3], *wrong]) == 2


def test_results_say_what_their_numbers_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["results", str(log(tmp_path / "any.txt", 2.0))]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Not verified by MLCommons" in said
    assert "results of this benchmark, not MLPerf results" in said
