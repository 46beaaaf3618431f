"""report.html: a run explains itself in one file, which needs no network and no script.

Whatever comes from outside (names of classes, files, hosts, devices) is escaped where it is written.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ssd.errors import EXIT_MEANING, EXIT_REACHED
from ssd.files import write_whole
from ssd.mlperf.notice import NOTICE, TRADEMARK
from ssd.report.figures import (
    account_section,
    curve_section,
    loss_section,
    speed_section,
    telemetry_section,
)
from ssd.report.story import MISREAD, Story
from ssd.report.style import CSS
from ssd.report.summary import REPORT
from ssd.report.svg import number, table
from ssd.text import counted, said_by, visible

__all__ = ["REPORT", "report_html", "write_report"]

log = logging.getLogger(__name__)

MOST_PICTURE_BYTES = 900_000
"""Of the picture in the page: as base64 it grows by a third, and the page is to stay below 1.5 MB."""
TAKEN = (
    ("max_memory_allocated_mib", "device memory", ",.0f", "MiB at most, warm-up included"),
    ("compile_s", "compiling", ".1f", "s before run_start"),
    ("host_cores", "host cores", ".2f", "busy a process, from run_start on"),
    ("launches_per_step", "launches", "g", "a step, without communication"),
)
"""What a run took of its machine, where it is known: field of summary.json, and how the page shows it."""
WHAT_MAP_IS = "mAP, from 0 to 1, says how well its boxes and classes match the annotations."
OF_A_LOG = "Made from a result log, whose numbers are its own; the others are computed from them."


def write_report(story: Story, path: Path, *, pictures: bool = True) -> None:
    """Write the page of a story, whole or not at all. pictures: with photos of the data set, boxes on them."""
    write_whole(path, report_html(story, pictures=pictures))


def report_html(story: Story, *, pictures: bool = True) -> str:
    """The page of a story."""
    sections: list[tuple[str, str, Callable[[Story], str]]] = [
        ("map", "Accuracy", curve_section),
        ("loss", "Loss and learning rate", loss_section),
        ("speed", "Speed", speed_section),
        ("account", "Where the time went", account_section),
        ("devices", "Devices", telemetry_section),
        ("detections", "Detections", lambda told: _detections(told, pictures)),
        ("categories", "Categories", _categories),
        ("errors", "Kinds of error", _errors),
        ("config", "Config", _config),
        ("machine", "Machine", _machine),
    ]
    title, note = _title(story), f"{f'{OF_A_LOG} ' if story.published else ''}{NOTICE} {TRADEMARK}"
    links = "".join(f'<li><a href="#{name}">{escape(head)}</a></li>' for name, head, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{escape(head)}</h2>{_told(make, story)}'
        "</section>"
        for name, head, make in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # nothing is fetched, whatever a name in the page pretends to be
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the report</a><header><h1>{escape(title)}</h1>'
        f"{_told(_verdict, story)}</header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main id="main">'
        f"{_told(_headline, story)}{_told(_warnings, story)}{body}"
        f"</main><footer><p>{escape(note)}</p><p>What each number means: docs/reading-a-run.md. Every value is "
        "in metrics.jsonl and summary.json of the run's folder.</p></footer></body></html>\n"
    )


def _told(make: Callable[[Story], str], story: Story) -> str:
    """What `make` tells of a story. Where a file of the run holds what no run writes, this is said in its place."""
    try:
        return make(story)
    except MISREAD as error:
        said = f"a file of this run holds what no run writes ({said_by(error)})"
        log.warning("a part of the page of %s is left out: %s", visible(story.name), said)
        return f'<p class="lacking">Left out: {escape(visible(said))}.</p>'


def _title(story: Story) -> str:
    summary = story.summary
    return f"{summary['name']} / {summary['config']}" if "name" in summary and "config" in summary else story.name


def _verdict(story: Story) -> str:
    summary = story.summary
    lacks = "".join(f"<p>{escape(one)}</p>" for one in story.lacks)
    if "exit_code" not in summary:
        return lacks
    reached = summary["exit_code"] == EXIT_REACHED
    best = max((score for _, score in summary.get("evaluations", [])), default=None)
    said = "was not evaluated" if best is None else f"reached mAP {best:.4f} at best"
    kind = "yes" if reached else "no"
    words = "reached its target" if reached else EXIT_MEANING.get(summary["exit_code"], "ended")
    goal = f"The target was mAP {summary['target']:g}; the run {said}."
    told = f"Training of SSD300, an object detector; seed {summary['seed']}. {WHAT_MAP_IS}" if "seed" in summary else ""
    if summary.get("resumed"):
        told += " It was resumed: its times count from its first run_start, and its account only from the last start."
    return (
        f'<p class="verdict"><b class="{kind}">The run {escape(_as_clause(words))}.</b> {escape(goal)}</p>'
        f'<p class="soft">{escape(told)}</p>{lacks}'
    )


def _as_clause(words: str) -> str:
    return words if words.split()[0] in ("reached", "trained", "ended") else f"ended: {words}"


def _headline(story: Story) -> str:
    summary, cards = story.summary, []
    seconds = summary.get("seconds", {}).get("run")
    if summary.get("time_to_target_s") is not None:
        cards.append(("time to target", _time(summary["time_to_target_s"]), "without set-up: run_start to run_stop"))
    elif seconds is not None:
        cards.append(("trained for", _time(seconds), "from run_start; the target was not reached"))
    if rate := summary.get("images_per_s"):
        cards.append(("throughput", _rate(rate), "images/s while training"))
    if each := summary.get("images_per_s_per_device"):
        cards.append(("a device", _rate(each), f"images/s; {_mfu(summary)}"))
    for key, head, form, small in TAKEN:
        if summary.get(key) is not None:
            cards.append((head, number(summary[key], form), small))
    if summary.get("evaluations"):
        epoch, score = summary["evaluations"][-1]
        cards.append(("mAP", number(score, ".4f"), f"after epoch {epoch}; target {summary['target']:g}"))
    if "steps" in summary:
        cards.append(("steps", number(summary["steps"], "d"), f"{counted(summary['global_batch'], 'image')} each"))
    if "exit_code" in summary:
        meaning = EXIT_MEANING.get(summary["exit_code"], "").partition(" (")[0]
        cards.append(("exit code", number(summary["exit_code"], "d"), meaning))
    shown = "".join(
        f"<div><dt>{escape(head)}</dt><dd>{value}<small>{escape(small)}</small></dd></div>"
        for head, value, small in cards
    )
    return f'<dl class="cards">{shown}</dl>' if shown else ""


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{number(seconds, '.1f')} s"
    return f"{number(round(seconds / 60, 3), '.2f')} min"


def _rate(value: float) -> str:
    return number(value, ",.0f" if value >= 1000 else ".1f" if value >= 10 else ".2f")


def _mfu(summary: Mapping[str, Any]) -> str:
    if summary.get("mfu") is None:
        return "share of the peak: not known for this device or width"
    return f"{summary['mfu']:.1%} of {summary['peak']}"


def _warnings(story: Story) -> str:
    if not story.records and not story.findings:
        return ""
    if not story.findings:
        return "<p>Nothing unusual was found in the course of this run.</p>"
    items = "".join(f"<li><b>{escape(one['name'])}.</b> {escape(one['words'])}</li>" for one in story.findings)
    return (
        f'<section class="warn" aria-label="Unusual in this run"><h2>Unusual in this run</h2><ul>{items}</ul></section>'
    )


def _detections(story: Story, pictures: bool) -> str:
    if story.picture is None:
        return _lacking(story, "detections.jpg")
    if not pictures:
        return '<p class="lacking">The page was made without pictures (--no-pictures).</p>'
    content = story.picture.read_bytes()
    if len(content) > MOST_PICTURE_BYTES:
        return f'<p class="lacking">{escape(story.picture.name)} is too large for the page; it is in the folder.</p>'
    data = base64.b64encode(content).decode("ascii")
    return (
        "<p>Pairs of the first evaluated images: the boxes of the annotations are on the left, what the model detected "
        "with a score of 0.3 or more is on the right.</p>"
        f'<img src="data:image/jpeg;base64,{data}" alt="Validation images in pairs: annotated boxes, and detections '
        'with class and score">'
        '<p class="soft">These images come from the data set that was evaluated. Photos have licences of their own, '
        "which are not ours to give: before you publish this page, look at them, or make it with --no-pictures.</p>"
    )


def _lacking(story: Story, file: str) -> str:
    why = "a result log does not say it" if story.published else f"there is no {file} in the run's folder"
    return f'<p class="lacking">Not known: {escape(why)}.</p>'


def _categories(story: Story) -> str:
    rows = story.details.get("categories")
    if not rows:
        return _lacking(story, "evaluation.json")
    interval = story.details.get("interval")
    said = ""
    if interval:
        low, high = interval["low"], interval["high"]
        said = (
            f"<p>mAP {number(interval['AP'], '.4f')}; {interval['confidence']:.0%} of {interval['samples']} samples of "
            f"the same images, drawn again, lie from {number(low, '.4f')} to {number(high, '.4f')}.</p>"
        )
    ranked = sorted(rows, key=lambda row: -1.0 if row["AP"] is None else row["AP"], reverse=True)
    cells = [
        (
            escape(str(row["name"])),
            "" if row["AP"] is None else number(row["AP"], ".4f"),
            "" if row["AP50"] is None else number(row["AP50"], ".4f"),
            number(row["boxes"], "d"),
            number(row["detections"], "d"),
        )
        for row in ranked
    ]
    heads = ("category", "AP", "AP at IoU 0.5", "annotated boxes", "detections")
    return said + table(heads, cells, "Average precision by category", words=1)


ERRORS = {
    "Cls": ("class", "The box is right, the class is wrong."),
    "Loc": ("location", "The class is right, the box is off (IoU from 0.1 to 0.5)."),
    "Both": ("both", "Class and box are wrong."),
    "Dupe": ("duplicate", "The object was detected already, by a better box."),
    "Bkg": ("background", "There is nothing (IoU below 0.1)."),
    "Miss": ("missed", "An annotated object that nothing detects."),
}


def _errors(story: Story) -> str:
    errors = story.details.get("errors")
    if not errors:
        return _lacking(story, "evaluation.json")
    rows = [
        (
            escape(name),
            escape(meaning),
            number(errors["counts"].get(key, 0), "d"),
            number(errors["delta_ap"].get(key, math.nan), ".4f"),
        )
        for key, (name, meaning) in ERRORS.items()
    ]
    return (
        f"<p>What AP at IoU 0.5, now {number(errors['ap_base'], '.4f')}, would gain if each kind of error were mended "
        "alone (TIDE).</p>" + table(("kind", "meaning", "count", "AP gained"), rows, "Kinds of error", words=2)
    )


def _config(story: Story) -> str:
    if not story.config:
        return _lacking(story, "config.json")
    given = {key: one for key, one in story.config.items() if one.get("from") != "default"}
    rows = _rows(given)
    rest = {key: one for key, one in story.config.items() if key not in given}
    return (
        table(("key", "value", "from"), rows, "Keys that were set", words=3)
        + f"<details><summary>{counted(len(rest), 'key at its default', 'keys at their default')}</summary>"
        + table(("key", "value", "from"), _rows(rest), "Keys at their default", words=3)
        + "</details>"
    )


def _rows(keys: Mapping[str, Mapping[str, Any]]) -> Sequence[Sequence[str]]:
    return [
        (escape(key), f"<code>{escape(str(one.get('value')))}</code>", escape(str(one.get("from"))))
        for key, one in keys.items()
    ]


def _machine(story: Story) -> str:
    if not story.system:
        return _lacking(story, "system.json")
    rows = [(escape(str(key)), escape(str(value))) for key, value in story.system.items() if value not in ("", None)]
    commit = story.summary.get("commit")
    rows += [("commit", f"<code>{escape(str(commit))}</code>")] if commit else []
    return table(("field", "value"), rows, "Machine", words=2)
