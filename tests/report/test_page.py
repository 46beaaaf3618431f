"""report.html: its numbers are the files' own, it needs nothing from outside, and no name in it is obeyed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssd.account.facts import read_metrics
from ssd.account.parts import PARTS
from ssd.account.trace import make_trace
from ssd.errors import DataError
from ssd.report import page as page_module
from ssd.report.page import report_html, write_report
from ssd.report.story import Story, story_of_run, write_trace

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


def test_a_run_that_goes_on_has_the_account_as_it_was_last_noted(tmp_path: Path) -> None:
    noted = [{"kind": "account", "time": 1.0, "parts": {"data_wait": n / 2}, "wall_s": n} for n in (1.0, 3.0, 4.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in noted))
    account = story_of_run(tmp_path).account
    assert (account["parts"], account["wall_s"]) == ({"data_wait": 2.0}, 4.0)


def test_the_trace_of_a_run_is_a_file_of_its_folder(run_folder: Path) -> None:
    write_trace(run_folder)
    expected = make_trace(read_metrics(run_folder / "metrics.jsonl"), run_folder.name)
    assert json.loads((run_folder / "trace.json").read_text()) == expected


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


def test_a_resumed_run_says_what_its_account_covers(write: Callable[..., Path], tmp_path: Path) -> None:
    for resumed in (False, True):
        page = report_html(story_of_run(write(tmp_path / str(resumed), resumed=resumed)))
        assert ("It was resumed: its times count from its first run_start" in page) is resumed


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


# Single texts of the page


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(119.94, '<data value="119.94">119.9</data> s'), (120.0, '<data value="2.0">2.00</data> min')],
)
def test_times_from_two_minutes_on_are_minutes(seconds: float, said: str) -> None:
    assert page_module._time(seconds) == said


@pytest.mark.parametrize(("rate", "said"), [(1000.0, "1,000"), (999.94, "999.9"), (10.0, "10.0"), (9.994, "9.99")])
def test_rates_have_as_many_places_as_they_are_worth(rate: float, said: str) -> None:
    assert page_module._rate(rate) == f'<data value="{rate!r}">{said}</data>'


def cards(summary: dict) -> list[tuple[str, str, str]]:
    drawn = page_module._headline(Story("run", summary=summary))
    found = re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)<small>(.*?)</small></dd></div>", drawn)
    return [(head, re.sub("<[^>]+>", "", value), small) for head, value, small in found]


def test_the_headline_of_a_run_that_missed_its_target() -> None:
    summary = {"seconds": {"run": 90.0}, "exit_code": 4, "images_per_s": 12.0, "images_per_s_per_device": 6.0}
    summary |= {"mfu": 0.31, "peak": "312 TFLOP/s", "compile_s": 0.0, "evaluations": [[1, 0.1], [2, 0.05]]}
    summary |= {"target": 0.23, "steps": 8, "global_batch": 4, "max_memory_allocated_mib": 1234.0}
    assert cards(summary) == [
        ("trained for", "90.0 s", "from run_start; the target was not reached"),
        ("throughput", "12.0", "images/s while training"),
        ("a device", "6.00", "images/s; 31.0% of 312 TFLOP/s"),
        ("device memory", "1,234", "MiB at most, warm-up included"),
        ("compiling", "0.0", "s before run_start"),
        ("mAP", "0.0500", "after epoch 2; target 0.23"),
        ("steps", "8", "4 images each"),
        ("exit code", "4", "trained all its epochs without reaching the target"),
    ]


def test_a_headline_of_little() -> None:
    assert cards({}) == []
    assert page_module._headline(Story("run")) == ""
    assert cards({"images_per_s_per_device": 6.0}) == [
        ("a device", "6.00", "images/s; share of the peak: not known for this device or width")
    ]


@pytest.mark.parametrize(
    ("summary", "kind", "words"),
    [
        ({"exit_code": 0, "target": 0.23, "evaluations": [[1, 0.24], [2, 0.1]]}, "yes",
         "The run reached its target.</b> The target was mAP 0.23; the run reached mAP 0.2400 at best."),
        ({"exit_code": 5, "target": 0.2, "seed": 3}, "no", "the run was not evaluated."),
        ({"exit_code": 6, "target": 0.2}, "no", "The run ended: "),
        ({"exit_code": 99, "target": 0.2}, "no", "The run ended.</b>"),
    ],
)  # fmt: skip
def test_the_verdict(summary: dict, kind: str, words: str) -> None:
    drawn = page_module._verdict(Story("run", summary=summary, lacks=["<i>"]))
    assert f'<b class="{kind}">' in drawn
    assert words in drawn
    assert ("seed 3." in drawn) == ("seed" in summary)
    assert drawn.endswith("<p>&lt;i&gt;</p>")
    assert page_module._verdict(Story("run", lacks=["a", "b"])) == "<p>a</p><p>b</p>"


def test_what_is_unusual_is_listed_or_denied() -> None:
    found = [{"name": "a stall", "words": "It stood < 9 s."}]
    assert page_module._warnings(Story("run")) == ""
    assert "Nothing unusual" in page_module._warnings(Story("run", records=[{"kind": "start"}]))
    drawn = page_module._warnings(Story("run", findings=found))
    assert "<li><b>a stall.</b> It stood &lt; 9 s.</li>" in drawn


def test_the_title_is_vendor_and_config_or_the_folder_s_name() -> None:
    assert page_module._title(Story("run-1", summary={"name": "cpu", "config": "demo"})) == "cpu / demo"
    assert page_module._title(Story("run-1", summary={"name": "cpu"})) == "run-1"
    assert page_module._title(Story("run-1", summary={"config": "demo"})) == "run-1"


def test_a_picture_that_is_too_large_stays_in_the_folder(tmp_path: Path) -> None:
    picture = tmp_path / "detections.jpg"
    for size, whole in ((900_000, True), (900_001, False)):
        picture.write_bytes(b"x" * size)
        drawn = page_module._detections(Story("run", picture=picture), True)
        assert ("data:image/jpeg;base64,eHh4" in drawn) == whole
        assert ("detections.jpg is too large for the page" in drawn) != whole


def test_what_a_result_log_lacks_is_its_own() -> None:
    told = report_html(Story("log", published=True))
    assert "Not known: a result log does not say it." in told
    assert page_module.OF_A_LOG in told
    assert page_module.OF_A_LOG not in report_html(Story("run"))


def test_categories_are_ranked_and_the_unknown_are_last() -> None:
    rows = [
        {"name": n, "AP": ap, "AP50": ap, "boxes": 1, "detections": 2}
        for n, ap in zip("abc", (0.1, None, 0.3), strict=True)
    ]
    drawn = page_module._categories(Story("run", details={"categories": rows}))
    assert re.findall(r"<tr><td>(\w)</td>", drawn) == ["c", "a", "b"]
    assert '<td>b</td><td class=n></td><td class=n></td><td class=n><data value="1">' in drawn
    assert "samples of" not in drawn


def test_keys_that_were_set_stand_apart_from_defaults() -> None:
    config = {"a": {"value": 1, "from": "demo"}, "b": {"value": "<", "from": "default"}, "c": {"value": 2}}
    drawn = page_module._config(Story("run", config=config))
    given, rest = drawn.split("<details>")
    assert re.findall(r"<td>(\w)</td><td><code>(.*?)</code></td><td>(\w+)</td>", given) == [
        ("a", "1", "demo"),
        ("c", "2", "None"),
    ]
    assert "<summary>1 key at its default</summary>" in rest
    assert "<td>b</td><td><code>&lt;</code></td><td>default</td>" in rest


def test_the_machine_is_told_without_what_is_not_known() -> None:
    drawn = page_module._machine(Story("run", system={"cpu": "x < y", "nodes": 1, "power": "", "cooling": None}))
    assert "x &lt; y" in drawn
    assert "nodes" in drawn
    assert "power" not in drawn
    assert "cooling" not in drawn


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("evaluation.json", {"errors": {"counts": 5}}),
        ("evaluation.json", {"interval": {"AP": 0.2}}),
        ("evaluation.json", {"categories": [{"name": "cat", "AP": "high"}]}),
        ("config.json", {"epochs": "6"}),
        ("summary.json", {"account": {"parts": "none"}}),
        ("summary.json", {"account": {"parts": {"step": {}}, "wall_s": 1.0}}),
    ],
)
def test_a_broken_file_takes_its_section_away_and_no_other(run_folder: Path, file: str, change: dict[str, Any]) -> None:
    content = json.loads((run_folder / file).read_text())
    (run_folder / file).write_text(json.dumps(content | change))
    page = report_html(story_of_run(run_folder))
    assert page.count("Left out: a file of this run holds what no run writes") == 1
    assert "Loss and learning rate" in page


def test_nothing_is_left_out_of_the_page_of_a_good_run(run_folder: Path) -> None:
    assert "Left out" not in report_html(story_of_run(run_folder))


def test_a_record_that_no_run_writes_is_refused_by_name(run_folder: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "telemetry", "time": 1.0, "use_percent": 5.0, "clock_mhz": [1.0]}) + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl: a record is not as docs/metrics\.schema\.json says"):
        story_of_run(run_folder)


def test_a_summary_with_a_number_that_json_does_not_have_is_no_summary(run_folder: Path) -> None:
    content = (run_folder / "summary.json").read_text()
    (run_folder / "summary.json").write_text(content.replace("133.25", "NaN"))
    assert story_of_run(run_folder).summary == {}


def test_a_line_of_metrics_that_is_nested_without_end_is_left_out(run_folder: Path) -> None:
    before = story_of_run(run_folder).records
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind":' + "[" * 100_000 + "\n")
    assert story_of_run(run_folder).records == before
