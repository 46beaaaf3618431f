"""The sections of a report that are drawn: accuracy, loss, speed, the account of time, telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ssd.account.parts import AFTER, BEFORE, PARTS
from ssd.report.story import Story
from ssd.report.svg import Mark, Series, line_chart, number, stacked_bar, table
from ssd.text import counted

__all__ = ["account_section", "curve_section", "loss_section", "speed_section", "telemetry_section"]


def curve_section(story: Story) -> str:
    """mAP over epochs, with the target."""
    evaluated = story.of("evaluation")
    points = [(one["epoch"], one["AP"]) for one in evaluated if one.get("AP") is not None]
    target = story.summary.get("target")
    level = (target, f"target {target:g}") if target is not None else None
    return line_chart(
        "mAP after each evaluation (COCO's AP, IoU 0.5 to 0.95)",
        [Series("mAP", points, ".4f")],
        "epoch",
        "mAP",
        level=level,
    )


def loss_section(story: Story) -> str:
    """Loss and learning rate over steps."""
    train = story.of("train")
    loss = [(one["step"], one["loss"]) for one in train if one.get("loss") is not None]
    rate = [(one["step"], one["learning_rate"]) for one in train if one.get("learning_rate") is not None]
    return line_chart(
        "Training loss, mean of each logging interval over all ranks", [Series("loss", loss)], "step", "loss"
    ) + line_chart("Learning rate", [Series("learning rate", rate)], "step", "learning rate")


def speed_section(story: Story) -> str:
    """Images/s over time; evaluations and checkpoints are marked."""
    train = [one for one in story.of("train") if one.get("images_per_s")]
    begun = _began(story)
    points = [((one["time"] - begun) / 60, one["images_per_s"]) for one in train]
    marks = [
        Mark((one["time"] - begun) / 60, kind) for kind in ("evaluation", "checkpoint") for one in story.of(kind)[-40:]
    ]
    return line_chart(
        f"Images/s of each {'epoch' if story.published else 'logging interval'}, all devices together",
        [Series("images/s", points, ",.1f")],
        "minutes since run_start",
        "images/s",
        marks=marks if points else (),
    )


def _began(story: Story) -> float:
    """Unix seconds of run_start: set-up ends there."""
    known = story.of("set_up") or story.of("start") or list(story.records[:1])
    return float(known[0]["time"]) if known else 0.0


def _kind(name: str) -> str:
    """The CSS class of a part."""
    kinds = {"data_wait": "wait", "step": "step", "checkpoint": "checkpoint", "first_epoch_excess": "loss"}
    if name.startswith("eval"):
        return "evaluation"
    if name not in kinds and name in PARTS:
        return "before" if PARTS[name].group in (BEFORE, AFTER) else "other"
    return kinds.get(name, "other")


def account_section(story: Story) -> str:
    """The parts of the time as one bar with its table, and what explains them."""
    account = story.account
    if not account.get("parts"):
        return '<p class="lacking">Not known: the time of this run was not measured by part.</p>'
    parts, wall = account["parts"], account["wall_s"]
    titles = account.get("titles", {})
    named = {name: titles.get(name) or (PARTS[name].title if name in PARTS else name) for name in parts}
    bar = stacked_bar("Account of the time", [(named[name], size, _kind(name)) for name, size in parts.items()], "s")
    rows = [
        (
            f'<i class="swatch {_kind(name)}"></i>{escape(named[name])}',
            escape(account.get("meanings", {}).get(name) or (PARTS[name].meaning if name in PARTS else "")),
            number(seconds, ".2f"),
            f"{seconds / wall:.1%}" if wall else "",
        )
        for name, seconds in parts.items()
    ]
    clock = f"The wall clock measured {number(wall, '.2f')} s."
    rows.append(("<b>sum</b>", clock, f"<b>{number(sum(parts.values()), '.2f')}</b>", "100.0%"))
    heads = ("part", "what happens in it", "seconds", "share")
    covers = account.get("covers", "All time of rank 0, from the launcher's start to the summary.")
    return (
        f"<p>{escape(covers)} The parts do not overlap.</p>"
        + bar
        + table(heads, rows, "Account", words=2, kind="scroll all")
        + _within(account)
    )


def _within(account: Mapping[str, Any]) -> str:
    """The second level: shares of sampled steps, and ranks. Not added to the parts."""
    said = ""
    if sampled := account.get("sampled"):
        clock = "the device's own events" if sampled.get("clock") == "device" else "the host's clock"
        rows = [
            (escape(name), number(seconds * 1000, ".2f"), f"{sampled['share'][name]:.1%}")
            for name, seconds in sampled["seconds_per_step"].items()
        ]
        said += (
            f"<h3>Within a step (sampled)</h3><p>{counted(sampled['steps'], 'step')}, timed by {clock}. With several "
            "processes the backward pass contains the communication that hides behind it.</p>"
            + table(("in a step", "milliseconds", "share"), rows, "Within a step, sampled", words=1)
        )
    if ranks := account.get("ranks"):
        each = [(number(n, "d"), number(seconds, ".2f")) for n, seconds in enumerate(ranks["seconds"])]
        said += (
            f"<h3>Ranks</h3><p>Rank {ranks['slowest']} was the slowest: the other ranks waited for it for about "
            f"{number(ranks['waited_s'], '.2f')} s in all.</p>"
            + table(("rank", "seconds of data wait and forward passes"), each, "Ranks")
        )
    return said


NAMES = {
    "power_w": ("Power", "W"),
    "temperature_c": ("Temperature", "degrees Celsius"),
    "memory_mib": ("Memory", "MiB"),
    "clock_mhz": ("Clock", "MHz"),
    "use_percent": ("Use", "%"),
}
MOST_DEVICES = 4
"""Curves of one figure. Of more devices, the first ones are drawn."""


def telemetry_section(story: Story) -> str:
    """A figure a quantity, a curve a device."""
    readings, begun = story.of("telemetry"), _began(story)
    said = []
    for name, (title, unit) in NAMES.items():
        curves: dict[int, list[tuple[float, float]]] = {}
        for one in readings:
            for device, value in enumerate(one.get(name) or []):
                if value is not None and device < MOST_DEVICES:
                    curves.setdefault(device, []).append(((one["time"] - begun) / 60, value))
        if curves:
            series = [Series(f"device {device}", points) for device, points in sorted(curves.items())]
            figure = line_chart(title, series, "minutes since run_start", unit, from_zero=name != "temperature_c")
            said.append(figure)
    if not said:
        why = "a result log has none" if story.published else "a CPU has none, or the vendor's library is not installed"
        return f'<p class="lacking">No telemetry: {escape(why)}.</p>'
    return "".join(said)
