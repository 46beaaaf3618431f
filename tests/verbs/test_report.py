"""`report`: the page of a folder or of a bare log, made again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ssd.cli import main
from ssd.mlperf.notice import NOTICE


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
