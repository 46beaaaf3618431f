"""`report`: the page of a folder or of a bare log, made again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ssd.cli import main
from ssd.mlperf.notice import NOTICE
from ssd.report.log_story import story_of_log


def record(key: str, ms: float, value: object = None, **metadata: object) -> str:
    return f":::MLLOG {json.dumps({'time_ms': ms, 'key': key, 'value': value, 'metadata': metadata})}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of six epochs, the first of which took three times as long, and one evaluation."""
    text = record("submission_benchmark", 0, "ssd") + record("train_samples", 0, 9000) + record("init_start", 0)
    text += record("submission_platform", 0, "<script>alert(1)</script>") + record("run_start", 5000)
    now = 6000
    for epoch, seconds in enumerate((30, 10, 10, 10, 10, 10), 1):
        text += record("epoch_start", now, epoch_num=epoch)
        now += 1000 * seconds
        text += record("epoch_stop", now, epoch_num=epoch)
    text += record("eval_start", now, epoch_num=6) + record("eval_stop", now + 2000, epoch_num=6)
    text += record("eval_accuracy", now + 2000, 0.2345678, epoch_num=6)
    text += record("run_stop", now + 2500, status="success")
    path = tmp_path / "result_0.txt"
    path.write_text(text)
    return path


def test_a_page_of_a_bare_log_says_what_it_lacks(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(log)]) == 0
    page = (log.parent / "result_0.report.html").read_text(encoding="utf-8")
    assert str(log.parent / "result_0.report.html") in capsys.readouterr().out
    assert "made from a result log alone" in page
    assert "a result log does not say it" in page
    assert "first epoch long" in page
    assert NOTICE in page
    assert "<script" not in page
    parts = page.split('<section id="account"')[1].split("</section>")[0]
    values = [float(one) for one in re.findall(r'<data value="([^"]+)"', parts)]
    assert values == pytest.approx([5.0, 1.0, 20.0, 60.0, 2.0, 0.5, 88.5, 88.5])
    curve = page.split('<section id="map"')[1].split("</section>")[0]
    assert re.findall(r'<data value="([^"]+)"', curve) == ["6", "0.2345678"]


def test_the_story_of_a_log(log: Path) -> None:
    story = story_of_log(log)
    assert story.name == "<script>alert(1)</script>: result_0.txt"
    assert story.summary == {
        "evaluations": [(6, 0.2345678)],
        "target": 0.23,
        "images_per_s": 900.0,
        "seconds": {"run": pytest.approx(83.52)},
        "time_to_target_s": pytest.approx(83.52),
    }
    ends = [(1, 36.0, 300.0), *((number, 36.0 + 10 * (number - 1), 900.0) for number in range(2, 7))]
    assert story.records == [
        {"kind": "set_up", "time": 5.0},
        *({"kind": "train", "time": time, "images_per_s": rate, "step": epoch} for epoch, time, rate in ends),
        {"kind": "evaluation", "epoch": 6, "AP": 0.2345678, "time": 88.0},
    ]
    assert story.account["wall_s"] == pytest.approx(88.5)
    assert story.published


def test_the_story_of_a_log_that_says_little(tmp_path: Path) -> None:
    """A target that was missed, epochs of no length or no number, an evaluation without an epoch or a value."""
    text = record("submission_benchmark", 0, "ssd") + record("run_start", 60_000) + record("train_samples", 0, 100)
    for epoch, begin, end in ((1, 61_000, 61_000), (2, 62_000, 64_000)):
        text += record("epoch_start", begin, epoch_num=epoch) + record("epoch_stop", end, epoch_num=epoch)
    text += record("epoch_stop", 65_000, epoch_num="x") + record("block_stop", 65_000, epoch_num=2)
    text += record("eval_accuracy", 66_000, 0.1) + record("eval_accuracy", 66_000, "nan", epoch_num=2)
    text += record("run_stop", 120_000, status="aborted")
    (tmp_path / "log.txt").write_text(text)
    story = story_of_log(tmp_path / "log.txt")
    assert story.name == "a system: log.txt"
    seconds = {"run": 60.0}
    assert story.summary == {"evaluations": [], "target": 0.23, "images_per_s": 100.0, "seconds": seconds}
    assert story.records == [
        {"kind": "set_up", "time": 60.0},
        {"kind": "train", "time": 64.0, "images_per_s": 50.0, "step": 2},
    ]
    (tmp_path / "log.txt").write_text(record("submission_benchmark", 0, "ssd"))
    bare = story_of_log(tmp_path / "log.txt")
    assert bare.summary == {"evaluations": [], "target": 0.23}
    assert (bare.records, bare.account) == ([{"kind": "set_up", "time": 0.0}], {})


def test_a_page_goes_where_it_is_asked_to(log: Path, tmp_path: Path) -> None:
    assert main(["report", str(log), "--out", str(tmp_path / "page.html"), "--no_pictures"]) == 0
    assert (tmp_path / "page.html").is_file()
    assert not (log.parent / "result_0.report.html").exists()


def test_a_folder_s_page_and_trace(tmp_path: Path) -> None:
    records = [{"kind": "set_up", "time": 1.0, "parts": {"imports": 1.0}}]
    records.append({"kind": "train", "time": 2.0, "step": 1, "epoch": 1, "loss": 3.0, "images_per_s": 4.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    assert main(["report", str(tmp_path)]) == 0
    assert "it left no summary.json" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


@pytest.mark.parametrize("content", [None, "", "a text\n"])
def test_what_is_no_run_is_refused(tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.txt"
    if content is not None:
        path.write_text(content)
    assert main(["report", str(path)]) == 3
    assert str(path) in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 3
    assert not list(tmp_path.glob("*.html"))
