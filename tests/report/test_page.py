"""report.html: its numbers are the files' own, it needs nothing from outside, and no name in it is obeyed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from ssd.account.parts import PARTS
from ssd.errors import DataError
from ssd.report.page import report_html, write_report
from ssd.report.story import story_of_run

TELEMETRY = ("power_w", "temperature_c", "memory_mib", "clock_mhz", "use_percent")
SECTIONS = ("map", "loss", "speed", "account", "devices", "detections", "categories", "errors", "config", "machine")


def section(page: str, name: str) -> str:
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def values(text: str) -> list[float]:
    return [float(one) for one in re.findall(r'<data value="([^"]+)"', text)]


@pytest.fixture
def page(run_folder: Path) -> str:
    return report_html(story_of_run(run_folder))


def records(folder: Path, kind: str) -> list[dict]:
    return [one for one in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if one["kind"] == kind]


def test_the_curves_are_those_of_metrics_jsonl(page: str, run_folder: Path) -> None:
    evaluated = records(run_folder, "evaluation")
    assert values(section(page, "map")) == [number for one in evaluated for number in (one["epoch"], one["AP"])]
    train = records(run_folder, "train")
    both = values(section(page, "loss"))
    assert both[: 2 * len(train)] == [number for one in train for number in (one["step"], one["loss"])]
    assert both[2 * len(train) :] == [number for one in train for number in (one["step"], one["learning_rate"])]
    assert values(section(page, "speed"))[1::2] == [one["images_per_s"] for one in train]


def test_the_account_adds_up_on_the_page(page: str, run_folder: Path) -> None:
    account = json.loads((run_folder / "summary.json").read_text())["account"]
    bar = re.findall(r'<rect[^>]* width="([\d.]+)"', section(page, "account"))
    assert sum(map(float, bar)) == pytest.approx(760, abs=0.2)
    parts = values(section(page, "account"))
    assert parts[: len(account["parts"])] == list(account["parts"].values())
    assert parts[len(account["parts"])] == pytest.approx(account["wall_s"])
    assert all(PARTS[name].meaning in page.replace("&#x27;", "'") for name in account["parts"])


def test_what_a_step_and_the_ranks_took_is_said_apart(page: str) -> None:
    told = section(page, "account")
    assert "Within a step (sampled)" in told
    assert "Rank 1 was the slowest" in told


def test_the_headline(page: str) -> None:
    head = page.split('<dl class="cards">')[1].split("</dl>")[0]
    assert re.findall(r"<dt>([^<]+)</dt>", head) == [
        "time to target",
        "throughput",
        "a device",
        "host cores",
        "launches",
        "mAP",
        "steps",
        "exit code",
    ]
    assert values(head) == [6.342, 133.25, 133.25, 1.875, 650, 0.2523456, 600, 0]
    assert "The run reached its target." in page


def test_a_run_that_did_not_reach_its_target_says_so(tmp_path: Path, write) -> None:
    folder = write(tmp_path / "short", exit_code=4, time_to_target_s=None)
    page = report_html(story_of_run(folder))
    assert "The run trained all its epochs without reaching the target." in page
    assert "The target was mAP 0.23; the run reached mAP 0.2523 at best." in page


def test_categories_errors_and_the_interval(page: str) -> None:
    assert values(section(page, "categories")) == [0.2523456, 0.2345, 0.2711, 0.31, 0.5, 40, 900, 0, 12]
    assert values(section(page, "errors")) == [0.5, *([3, 0.0125] * 6)]


def test_no_name_is_obeyed_and_nothing_is_fetched(page: str) -> None:
    assert "<script" not in page.lower()
    assert "&lt;script&gt;" in section(page, "categories")
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert not re.search(r"url\(|@import", page)


def test_a_page_for_everybody_has_no_photos(run_folder: Path) -> None:
    story = story_of_run(run_folder)
    assert "licences of their own" in report_html(story)
    bare = report_html(story, pictures=False)
    assert "data:image" not in bare
    assert "made without pictures" in bare


def test_sizes(run_folder: Path, tmp_path: Path) -> None:
    """A long run of eight devices, with a picture as large as they come."""
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    train = [json.loads(one) for one in lines if '"kind": "train"' in one]
    more = [json.dumps({**one, "step": one["step"] + n * 600}) for n in range(1, 100) for one in train]
    used = [{key: [n * 7919 % 300 + 0.123] * 8 for key in TELEMETRY} for n in range(3_000)]
    readings = [json.dumps({"kind": "telemetry", "time": 1.7e9 + n, **one}) for n, one in enumerate(used)]
    (run_folder / "metrics.jsonl").write_text("\n".join([*lines, *more, *readings]) + "\n")
    Image.effect_noise((1200, 1200), 80).convert("RGB").save(run_folder / "detections.jpg", quality=60)
    story = story_of_run(run_folder)
    assert len(report_html(story, pictures=False).encode()) < 250_000
    assert len(report_html(story).encode()) < 1_500_000


def test_it_says_what_it_is(page: str) -> None:
    assert "Not verified by MLCommons" in page
    assert "not MLPerf results. MLPerf is a trademark of MLCommons." in page


def test_missing_files_take_their_sections_away(run_folder: Path) -> None:
    for name in ("summary.json", "config.json", "system.json", "evaluation.json", "detections.jpg"):
        (run_folder / name).unlink()
    page = report_html(story_of_run(run_folder))
    assert "it left no summary.json" in page
    for name in ("detections", "categories", "errors", "config", "machine"):
        assert "Not known: there is no " in section(page, name)
    assert values(section(page, "map"))


@pytest.mark.parametrize(
    "content", ["", "no json\n", '{"kind": "train"}\n', '{"kind": "epoch", "epoch": 1, "step": 4}\n']
)
def test_records_that_say_little_make_a_page(run_folder: Path, content: str) -> None:
    (run_folder / "metrics.jsonl").write_text(content)
    page = report_html(story_of_run(run_folder))
    assert all(f'<section id="{name}"' in page for name in SECTIONS)


def test_a_folder_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no metrics\.jsonl"):
        story_of_run(tmp_path)


def test_a_page_is_whole_or_not_there(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_report(story_of_run(run_folder), tmp_path / "absent" / "report.html")
    write_report(story_of_run(run_folder), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith("</html>\n")
