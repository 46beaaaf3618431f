"""What `compare` is given: every kind of side is read, by what it is; published rows by name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ssd import cli
from ssd.errors import EXIT_BAD_CONFIG, EXIT_DIFFERENT, ConfigError, DataError
from ssd.mlperf.attempts import Attempt, State
from ssd.report.equality import Parting, Verdict
from ssd.report.side_by_side import OURS
from ssd.verbs import compare
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


def test_the_page_is_named_where_there_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / ("x" * 170 + "[a].html")
    path = str(run(tmp_path / "[mine]", 4.0))
    assert cli.main(["compare", path]) == 0
    tables = capsys.readouterr().out
    assert "the page" not in tables
    assert cli.main(["compare", path, "--html", str(page)]) == 0
    assert capsys.readouterr().out == f"{tables}the page: {page}\n"
    assert "A [mine]" in tables
    blocks = tables.split("\n\n")
    assert len(blocks) > 2
    assert not any(block.startswith(" ") for block in blocks), "a table is followed by an empty line, and not indented"


@pytest.mark.parametrize("equal", [True, False])
def test_two_runs_are_held_to_each_other(
    equal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Path, Path, float]] = []
    partings = [] if equal else [Parting(3, 1, "loss", "", (1.0, 2.0), 1.0, 0.5)]
    notes = ["[note] " + "x" * 200]

    def held(one: Path, other: Path, tolerance: float) -> Verdict:
        asked.append((one, other, tolerance))
        return Verdict((str(one), str(other)), tolerance, {"loss": 3}, partings, notes, {})

    monkeypatch.setattr(compare, "held_to_each_other", held)
    code = 0 if equal else EXIT_DIFFERENT
    assert cli.main(["compare", "a", "b", "--assert-equal"]) == code
    said = capsys.readouterr().out.splitlines()
    assert said == list(Verdict(("a", "b"), 0.0, {"loss": 3}, partings, notes, {}).lines())
    assert cli.main(["compare", "a", "b", "--assert-equal", "--tolerance", "0.25", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["equal"] is equal
    assert asked == [(Path("a"), Path("b"), 0.0), (Path("a"), Path("b"), 0.25)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "b", "--tolerance", "0.5"], "--tolerance goes with --assert-equal."),
        (["a", "--assert-equal"], "--assert-equal takes two runs, and got 1."),
        (["a", "b", "--assert-equal", "--html", "page.html"], "take --html out."),
    ],
)
def test_flags_that_do_not_go_together(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", *words]) == EXIT_BAD_CONFIG
    assert said in capsys.readouterr().err


def test_what_a_system_of_no_round_does_not_have() -> None:
    (bi,) = read_sides(["8 x BI-V100"])
    assert (bi.round, bi.division, bi.account, bi.devices) == ("none of MLPerf's", "none", {}, 8)
    assert (bi.runs, bi.minutes, bi.config["global batch"]) == (1, [], "1536")
    assert bi.machine == {"accelerator_model_name": "BI-V100", "number_of_nodes": "1", "accelerators_per_node": "8"}


def test_a_run_that_failed_is_no_run_that_reached(tmp_path: Path) -> None:
    """It counts among the runs, and its minutes do not. A width of its own and images of its own are said."""
    path = log(tmp_path / "any.txt", 2.0, images=64)
    path.write_text(
        path.read_text()
        .replace('"success"', '"aborted"')
        .replace('"ssd_width", "value": 1.0', '"ssd_width", "value": 0.5')
    )
    (side,) = read_sides([str(path)])
    assert (side.runs, side.reached, side.minutes, side.epochs) == (1, 0, [], [])
    assert side.task == "64 images, width 0.5"


def test_the_first_value_of_a_key_counts_and_a_run_named_twice_is_two_sides(tmp_path: Path) -> None:
    path = log(tmp_path / "any.txt", 2.0)
    path.write_text(path.read_text() + event("ssd_width", 0.25))
    one, other = read_sides([str(path), str(path)])
    assert one == other
    assert one.task == ""
    assert one.config["global batch"] == "32"


def test_a_description_without_accelerators_tells_no_number(tmp_path: Path) -> None:
    path = log(tmp_path / "results" / "cpus" / "ssd" / "result_0.txt", 3.0, ours=False)
    (tmp_path / "systems").mkdir()
    described = {"accelerators_per_node": "0", "number_of_nodes": "2"}
    (tmp_path / "systems" / "cpus.json").write_text(json.dumps(described))
    (side,) = read_sides([str(path)])
    assert (side.devices, side.machine) == (None, described)
