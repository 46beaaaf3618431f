"""The verb `plan` as a user gives it: tables, JSON, page, own runs, and what it refuses."""

from __future__ import annotations

import json

import pytest

from ssd.cli import main
from ssd.errors import EXIT_BAD_CONFIG, EXIT_BAD_DATA

A100 = ["plan", "--name", "nvidia", "--config", "A100x1x8", "--accelerator", "A100-SXM4-80GB (400W)"]


def run_folder(folder, *, batch: int, rate: float, exit_code: int = 0, epoch: int = 4):
    folder.mkdir()
    summary = {"images_per_s": rate, "global_batch": batch, "steps": 200, "exit_code": exit_code}
    summary |= {"seconds": {"run": 200 * batch / rate + 9.0, "evaluation": 4.0}, "evaluations": [[epoch, 0.25]]}
    (folder / "summary.json").write_text(json.dumps(summary))
    config = {"nproc_per_node": {"value": 1, "from": "default"}, "nodes": {"value": 1, "from": "default"}}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


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
        "published systems of A100",
        "stays within 4,096",
        "beyond the data",
        "are the fewest",
        "Not verified",
    ):
        assert words in said


def test_the_page_has_curve_table_and_published_points(tmp_path) -> None:
    page = tmp_path / "plan.html"
    assert main([*A100, "--accelerators", "4,8,64", "--page", str(page)]) == 0
    text = page.read_text()
    assert text.count("<circle") == 38
    assert "<polygon" in text
    assert "Not verified by MLCommons" in text
    assert "http" not in text


def test_a_chip_without_rows_is_a_roofline(capsys) -> None:
    assert main(["plan", "--name", "nvidia", "--config", "H100x1x8", "--accelerator", "H100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "roofline" in found["source"]
    _, middle, high = found["predictions"][0]["minutes"]
    assert high / middle > 1.4


def test_two_own_runs_tell_floor_and_image(tmp_path, capsys) -> None:
    """10 ms and 5 ms an image: batch 4 takes 30 ms, batch 8 takes 50 ms."""
    runs = [run_folder(tmp_path / "a", batch=4, rate=4 / 0.030), run_folder(tmp_path / "b", batch=8, rate=8 / 0.050)]
    words = ["plan", "--config", "smoke", "--train_batch_size", "16", "--accelerators", "1", "--json", "--measured"]
    assert main([*words, *runs]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["launch_ms"] == pytest.approx(10)
    assert found["arithmetic_ms"] == pytest.approx(80)
    assert found["epochs"] == [4, 4, 4]


def test_epochs_stay_unknown_where_nobody_knows(tmp_path, capsys) -> None:
    run = run_folder(tmp_path / "a", batch=4, rate=100.0, exit_code=5)
    assert main(["plan", "--config", "demo", "--accelerators", "1", "--measured", run]) == 0
    assert "unknown" in capsys.readouterr().out


def test_validate_prints_both_denominators(capsys) -> None:
    assert main(["plan", "--validate"]) == 0
    said = capsys.readouterr().out
    assert "33 systems, 165 runs" in said
    assert "33 of 42 systems count towards the goals; 2 rows are left out." in said
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
        ([], EXIT_BAD_CONFIG, "which accelerator?"),
        (["--accelerator", "Abacus 9"], EXIT_BAD_CONFIG, "neither a published row"),
        (["--rows", "x.csv"], EXIT_BAD_CONFIG, "--validate"),
        (["--validate", "--rows", "none.csv"], EXIT_BAD_DATA, "none.csv"),
        (["--measured", "nowhere"], EXIT_BAD_DATA, "not the folder of a finished run"),
    ],
)
def test_what_it_refuses(words: list[str], code: int, said: str, capsys) -> None:
    assert main(["plan", *words]) == code
    assert said in capsys.readouterr().err
