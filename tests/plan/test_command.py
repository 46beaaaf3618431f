"""The verb `plan` as a user gives it: tables, JSON, page, own runs, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ssd.cli import main
from ssd.errors import EXIT_BAD_CONFIG, EXIT_BAD_DATA
from ssd.plan.rows import LeftOut, read_rows
from ssd.plan.tables import apart_table, error_table
from ssd.plan.validate import Error, Summary

A100 = ["plan", "--name", "nvidia", "--config", "A100x1x8", "--accelerator", "A100-SXM4-80GB (400W)"]


def test_a_system_that_was_published(capsys) -> None:
    """DGX A100, round 1.1: 74.5 ms a step, 51 epochs, 8.1 minutes."""
    assert main([*A100, "--accelerators", "8", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["global_batch"] == 912
    assert found["step_ms"] == pytest.approx(74.5, rel=0.05)
    assert found["epochs"][1] == pytest.approx(51, abs=1)
    assert found["minutes"][0] < 8.1 < found["minutes"][2]
    assert found["minutes"][1] == pytest.approx(8.1, rel=0.06)


def test_several_numbers_as_a_table(capsys) -> None:
    assert main([*A100, "--accelerators", "8,64 4096", "--target_minutes", "2.5"]) == 0
    said = capsys.readouterr().out
    for words in (
        "nvidia / A100x1x8",
        "Where a step goes",
        "On paper: what a host must give",
        "step: published rows: 38 systems of A100",
        "start: published rows of A100",
        "4,096 accelerators: batch 1 a process",
        "stays within 4,096",
        "beyond the data",
        "are the fewest",
        "Not verified",
    ):
        assert words in said


def test_several_hosts_are_predicted_though_not_measured(capsys) -> None:
    assert main([*A100, "--nodes", "2", "--master_addr", "a", "--accelerators", "16"]) == 0
    assert "16" in capsys.readouterr().out


def test_the_page_has_curve_table_and_published_points(tmp_path) -> None:
    page = tmp_path / "plan.html"
    assert main([*A100, "--accelerators", "4,8,64", "--page", str(page)]) == 0
    text = page.read_text()
    assert text.count("<circle") == 38
    assert "<polygon" in text
    assert "Not verified by MLCommons" in text
    assert "http" not in text


@pytest.mark.parametrize(("chip", "faster"), [("H100", 2.15), ("H200", 2.69)])
def test_a_chip_without_rows_is_a_roofline(chip: str, faster: float, capsys) -> None:
    """An image is 0.304 ms of an A100's peak and 0.316 ms of its memory; each shrinks with its own ratio."""
    words = ["plan", "--name", "nvidia", "--config", "H100x1x8", "--train_batch_size", "114", "--json", "--accelerator"]
    assert main([*words, chip]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "roofline" in found["source"]
    assert 0.6194 * 114 / found["predictions"][0]["arithmetic_ms"] == pytest.approx(faster, abs=0.01)
    _, middle, high = found["predictions"][0]["minutes"]
    assert high / middle > 1.4


def test_the_row_of_bi_v100_pins_one_batch_and_no_other(capsys) -> None:
    words = ["plan", "--name", "nvidia", "--config", "V100x1x8", "--accelerators", "8", "--accelerator", "BI-V100"]
    ranges = {}
    for batch in ("192", "8"):
        assert main([*words, "--train_batch_size", batch, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        one = found["predictions"][0]
        ranges[batch] = one["step_span"][2] / one["step_span"][1]
        assert ("one batch alone was timed (192)" in " ".join(one["notes"])) == (batch == "8")
        assert found["sources"]["step"] == "published rows: 1 system of BI-V100"
        assert "the A100's" in found["sources"]["launch and communication"]
        assert one["evaluation_s"] == pytest.approx(0.112 + 3.152 * math.exp(1.49998) / 8, rel=0.001)
        if batch == "192":
            assert one["step_ms"] == pytest.approx(537.4, rel=0.001)
    assert ranges["192"] < 1.1
    assert ranges["8"] > 5


def test_two_own_runs_tell_floor_and_image(tmp_path, capsys, run_folder) -> None:
    """10 ms and 5 ms an image: batch 4 takes 30 ms, batch 8 takes 50 ms."""
    runs = [str(run_folder("a", batch=4, rate=4 / 0.030)), str(run_folder("b", batch=8, rate=8 / 0.050))]
    words = ["plan", "--config", "smoke", "--train_batch_size", "16", "--accelerators", "1", "--json", "--measured"]
    assert main([*words, *runs]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["launch_ms"] == pytest.approx(10)
    assert found["arithmetic_ms"] == pytest.approx(80)
    assert found["epochs"] == [4, 4, 4]
    assert found["epochs_from"] == "2 runs of your own"


def test_epochs_stay_unknown_where_nobody_knows(tmp_path, capsys, run_folder) -> None:
    run = run_folder("a", batch=4, rate=100.0, exit_code=5)
    words = ["--accelerators", "1", "--target_minutes", "5", "--measured", str(run)]
    assert main(["plan", "--config", "smoke", *words]) == 0
    said = capsys.readouterr().out
    assert "epochs: nobody knows" in said
    assert "Whether a time can be met is unknown" in said


def test_validate_prints_both_denominators(capsys) -> None:
    assert main(["plan", "--validate"]) == 0
    said = capsys.readouterr().out
    assert "33 systems, 165 runs" in said
    for title in ("Listed apart, or off by more than the goal", "Constants fitted on all rows", "Not verified"):
        assert title in said
    for row in said.splitlines():
        if "steady step" in row and "│" in row:
            assert ("3%, 8%" in row and "yes" in row) == (" all " in row), "goals are about all families together"
    assert "33 of 42 systems count towards the goals; left out: 2 rows." in said
    assert main(["plan", "--validate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["counted"], found["systems"], found["left_out"]) == (33, 42, 2)
    assert {"kind": "step", "family": "all", "count": 33}.items() <= found["errors"][0].items()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--accelerators", "0"], EXIT_BAD_CONFIG, "1 to 4,096"),
        (["--accelerators", "8,x"], EXIT_BAD_CONFIG, "1 to 4,096"),
        (["--accelerators", "9999"], EXIT_BAD_CONFIG, "1 to 4,096"),
        (["--accelerators", "1" * 5000], EXIT_BAD_CONFIG, "1 to 4,096"),
        ([], EXIT_BAD_CONFIG, "which accelerator?"),
        (["--accelerator", "Abacus 9"], EXIT_BAD_CONFIG, "neither a published row"),
        (["--rows", "x.csv"], EXIT_BAD_CONFIG, "--validate"),
        (["--validate", "--accelerator", "A100"], EXIT_BAD_CONFIG, "take --accelerator out"),
        (["--measure", "--accelerator", "A100"], EXIT_BAD_CONFIG, "take --accelerator out"),
        (["--measure", "--nodes", "2", "--master_addr", "a"], EXIT_BAD_CONFIG, "times one host"),
        (["--page", "no/such/folder/a.html"], EXIT_BAD_CONFIG, "--page"),
        (["--validate", "--rows", "none.csv"], EXIT_BAD_DATA, "none.csv"),
        (["--measured", "nowhere"], EXIT_BAD_DATA, "not the folder of a finished run"),
    ],
)
def test_what_it_refuses(words: list[str], code: int, said: str, capsys) -> None:
    assert main(["plan", *words]) == code
    assert said in capsys.readouterr().err


def test_it_refuses_before_torch_is_imported(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    tried = """
import sys
from ssd.cli import main
codes = [main(["plan", *words.split(" ")]) for words in sys.argv[1:]]
print(codes, "torch" in sys.modules)
"""
    words = ["--accelerators 0", f"--measured {file}", f"--validate --rows {file}", "--measure --accelerator A100"]
    command = [sys.executable, "-c", tried, *words]
    done = subprocess.run(command, cwd=root / "base", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[2, 3, 3, 2] False", done.stderr


def test_only_all_families_together_are_held_to_the_goals() -> None:
    """Met, missed by the median, missed by the 90%; a kind without a goal for the 90%; one family has no goal."""
    rows = [
        (Summary("step", "all", 33, 0.03, 0.08, 0.2), ["3%, 8%", "yes"]),
        (Summary("step", "all", 33, 0.031, 0.08, 0.2), ["3%, 8%", "no"]),
        (Summary("time", "all", 165, 0.03, 0.081, 0.2), ["3%, 8%", "no"]),
        (Summary("whole", "all", 165, 0.06, 0.9, 1.0), ["6%, -", "yes"]),
        (Summary("step", "A100 SXM", 20, 0.01, 0.02, 0.1), ["", ""]),
    ]
    table = error_table([one for one, _ in rows], 33, 165)
    cells = [list(column.cells) for column in table.columns]
    assert [list(row) for row in zip(*cells[-2:], strict=True)] == [goal for _, goal in rows]
    assert [column[0] for column in cells[:6]] == ["steady step", "all", "33", "3.0%", "8.0%", "20.0%"]


def test_systems_apart_say_why() -> None:
    """What the goals are not about, what is off by more than 8%, either way, and what was left out; nothing else."""
    row = read_rows()[0][0]
    errors = [
        Error(replace(row, system=name), "A100 SXM", counted, 10.0, step, (), ())
        for name, counted, step in (("a", True, 0.08), ("b", True, -0.09), ("c", True, 0.09), ("[d]", False, 0.0))
    ]
    table = apart_table(errors, [LeftOut("e", "no step")])
    names = list(table.columns[0].cells)
    assert [name.split()[-1] for name in names] == [r"\[d]", "b", "c", "e"], "within 8% and counted: not listed"
    whys = list(table.columns[-1].cells)
    assert [why.split(",")[0] for why in whys if "family" in why] == ["its family has few other submitters"] * 2
    assert whys[-1] == "left out: no step"


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    columns = {str(one.header): one.justify for one in apart_table([], []).columns}
    assert columns == {"system": "left", "step, ms": "right", "predicted": "right", "error": "right", "why": "left"}
