"""An estimate of a training step on an H100, part by part, from what its kernels move and compute.

    python bench/roofline.py             writes the table of docs/nvidia.md from bench/roofline.csv
    python bench/roofline.py --count     counts the kernels anew first (a minute of one core, no GPU)

A kernel takes the longer of two times: its bytes at a share of the memory's bandwidth, and its arithmetic at a share of
the tensor cores' peak. The two peaks are those of data sheets. The shares are assumptions: no card was measured.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from measure import ROOT

from ssd.plan.constants import fitted_constants, stated
from ssd.plan.roofline import half_precision_peak
from ssd.vendor.triton.sources import code_digest

if TYPE_CHECKING:
    from generated import Kernel

BATCH = 256
"""Images of a step: those of the config H100x1x1."""
LAUNCH_US = 2.0
"""What a kernel costs at least, from start to end."""
NORMS = "batch norm, ReLU and addition"
SMALL = 0.1
"""Below so many MB an image a kernel that is no convolution counts as small: it is its start that costs."""
RECORDED = 2
"""Images of the launches that `ssd.vendor.triton.build` records."""
CAUTIOUS, GOOD = (0.45, 0.80), (0.60, 0.90)
"""Shares of the peak arithmetic and of the memory's bandwidth that are assumed today."""
GOALS = (4000, 5000)
"""images/s."""
COUNTS = ROOT / "bench" / "roofline.csv"
PAGE = ROOT / "docs" / "nvidia.md"
BEGIN, END = "<!-- bench/roofline.py begins -->\n", "<!-- bench/roofline.py ends -->\n"
SOURCES = (
    "base/ssd/model",
    *(f"base/ssd/vendor/triton/{op}.py" for op in ("augment", "encode", "loss")),
    "bench/generated.py",
)
"""What decides the counts. A change of it makes the kept ones old."""


@dataclass(frozen=True)
class Row:
    """Kernels that are alike. part: what of the step they are. launches: all of them. mb, gflop: of one, an image."""

    part: str
    launches: int
    kernels: int
    mb: float
    gflop: float


@dataclass(frozen=True)
class Card:
    """tflops: half-precision peak. gb_s: bandwidth of the memory."""

    tflops: float
    gb_s: float


def card(chip: str) -> Card:
    """The two peaks of a chip, from the vendors' folders and base/published/constants.json."""
    peak = half_precision_peak(chip)
    assert peak is not None
    return Card(peak, stated(f"memory_{chip}"))


def microseconds(row: Row, on: Card, arithmetic: float, memory: float) -> float:
    """us an image of a row's kernels, at these shares (0..1) of the two peaks. Starting them counts apart."""
    return row.kernels * max(row.gflop / (on.tflops * arithmetic) * 1e3, row.mb / (on.gb_s * memory) * 1e3)


def started(rows: Sequence[Row]) -> float:
    """us an image that starting and ending all kernels takes."""
    return sum(row.launches for row in rows) * LAUNCH_US / BATCH


def whole(rows: Sequence[Row], on: Card, arithmetic: float, memory: float) -> float:
    """us an image of the step."""
    return started(rows) + sum(microseconds(row, on, arithmetic, memory) for row in rows)


def needed(rows: Sequence[Row], on: Card, rate: float, memory: float) -> float | None:
    """The share of the peak arithmetic at which a step makes `rate` images/s; None where the peak is too little."""
    low, high = 0.0, 1.0
    if whole(rows, on, high, memory) > 1e6 / rate:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if whole(rows, on, middle, memory) < 1e6 / rate else (middle, high)
    return high


def halved(rows: Sequence[Row]) -> list[Row]:
    """The same step if batch norm, ReLU and addition moved half of their bytes."""
    return [replace(row, mb=row.mb / 2) if row.part.startswith(NORMS) else row for row in rows]


# What is counted.


def part_of(kernel: Kernel) -> str:
    """What of the step a generated kernel is."""
    way = "backward" if kernel.backward else "forward"
    names = " ".join(kernel.origins)
    if kernel.biased is not None:
        return f"convolutions of {'extra blocks and heads' if kernel.biased else 'the backbone'}, {way}"
    if kernel.bytes < SMALL * 1e6 * BATCH:
        return "small kernels: casts, statistics, counters, small maps"
    if "aten.cat" in names:
        return f"heads' outputs from and to the layout of the loss, {way}"
    if "max_pool" in names or "scatter" in names:
        return f"max-pooling, {way}"
    return f"{NORMS}, {way}"


def counted() -> list[Row]:
    """Every kernel of a step, those alike together: what torch.compile generates, our own, and the optimizer."""
    import torch
    from generated import generated

    from ssd.model import build_model
    from ssd.vendor.triton.build import variants

    network, _ = build_model(seed=0, head_layout="joint")
    network = network.to(memory_format=torch.channels_last).train()
    shape = torch.empty((BATCH, 3, 300, 300), dtype=torch.bfloat16, device="meta")
    found: Counter[tuple[str, int, float, float]] = Counter()
    for kernel in generated(network, shape.to(memory_format=torch.channels_last)):
        size, flop = (round(value / BATCH, 4) for value in (kernel.bytes / 1e6, kernel.flop / 1e9))
        found[part_of(kernel), kernel.launches, size, flop] += 1
    for op in ("augment", "encode", "loss"):
        programs = variants(op)
        for name, record in programs.items():
            other_type = "fp16" in name or ("fp32" in name and name.replace("fp32", "bf16") in programs)
            if other_type or "jitter false" in name:
                continue
            size = sum(one.numel() * one.element_size() for one in record.arguments if isinstance(one, torch.Tensor))
            part = op if op != "loss" else f"loss, {'backward' if name.startswith('gradients') else 'forward'}"
            found[part, 1, round(size / RECORDED / 1e6, 4), 0.0] += 1
    # It reads weights, gradients and velocities in fp32, and writes weights and velocities: one launch.
    weights = sum(one.numel() for one in network.parameters())
    found["optimizer", 1, round(5 * 4 * weights / BATCH / 1e6, 4), 0.0] += 1
    return [Row(part, kernels * each, kernels, mb, gflop) for (part, each, mb, gflop), kernels in sorted(found.items())]


def digest() -> str:
    """A hash of the code that decides the counts."""
    return code_digest(path for name in SOURCES for path in (sorted((ROOT / name).glob("*.py")) or [ROOT / name]))


def kept() -> tuple[str, list[Row]]:
    """The words at the head of bench/roofline.csv, and its rows."""
    head, *lines = COUNTS.read_text(encoding="utf-8").splitlines()
    rows = [
        Row(one["part"], int(one["launches"]), int(one["kernels"]), float(one["mb"]), float(one["gflop"]))
        for one in csv.DictReader(lines)
    ]
    return head, rows


def keep(rows: Sequence[Row]) -> None:
    """Write bench/roofline.csv."""
    import torch

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row.__dataclass_fields__)
    writer.writerows(astuple(row) for row in rows)
    COUNTS.write_text(f"# torch {torch.__version__}, sources {digest()}\n{text.getvalue()}", encoding="utf-8")


# The page.


def table(rows: Sequence[Row]) -> str:
    """The lines between the page's marks. The columns of the goals are of `halved` rows."""
    on, half = card("H100"), halved(rows)
    ways = [("at the peaks", rows, (1.0, 1.0)), *(("today", rows, shares) for shares in (CAUTIOUS, GOOD))]
    ways += [(f"goal {rate:,}", half, (needed(half, on, rate, GOOD[1]) or 1.0, GOOD[1])) for rate in GOALS]
    heads = [f"{name}<br>{shares[0]:.0%}, {shares[1]:.0%}" for name, _, shares in ways]
    lines = [["part", "kernels", "MB", "GFLOP", *heads], ["---", *["--:"] * (3 + len(ways))]]
    for part in dict.fromkeys(row.part for row in rows):
        own = [row for row in rows if row.part == part]
        times = [sum(microseconds(row, on, *at) for row in step if row.part == part) for _, step, at in ways]
        lines.append([part, *_totals(own), *(f"{value:.1f}" for value in times)])
    begins = [f"{started(rows):.1f}"] * len(ways)
    lines.append([f"start and end of each kernel, {LAUNCH_US:g} us", "", "", "", *begins])
    sums = [whole(step, on, *at) for _, step, at in ways]
    lines.append(["**us an image**", *_totals(rows), *(f"**{value:.0f}**" for value in sums)])
    lines.append(["images/s", "", "", "", *(f"{1e6 / value:,.0f}" for value in sums)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _totals(rows: Sequence[Row]) -> list[str]:
    mb, gflop = (sum(row.kernels * getattr(row, name) for row in rows) for name in ("mb", "gflop"))
    return [f"{sum(row.launches for row in rows)}", f"{mb:.1f}", f"{gflop:.1f}"]


def text() -> str:
    """What stands between the page's marks: where the counts are from, the table, and what it says."""
    head, rows = kept()
    h100, a100, fitted = card("H100"), card("A100"), fitted_constants()
    said, older = (
        " to ".join(f"{1e6 / whole(rows, on, *shares):,.0f}" for shares in (CAUTIOUS, GOOD)) for on in (h100, a100)
    )
    lines = [
        f"Counted with {head.removeprefix('# ')}; peaks: {h100.tflops:,.0f} TFLOP/s and {h100.gb_s:,.0f} GB/s.",
        "",
        table(rows),
        f"- As the code stands: {said} images/s.",
        f"- The same shares on an A100: {older} images/s. Published systems of A100, with other software, say "
        f"{1e3 / (fitted.image + fitted.floor / BATCH):,.0f} (docs/plan.md).",
    ]
    for rate in GOALS:
        today, half = (_share(needed(one, h100, rate, GOOD[1])) for one in (rows, halved(rows)))
        lines.append(
            f"- {rate:,} images/s, with {GOOD[1]:.0%} of the memory's bandwidth: every convolution at {today} of the "
            f"peak arithmetic; at {half} if {NORMS} moved half of their bytes."
        )
    return "\n".join(lines) + "\n"


def _share(value: float | None) -> str:
    return "more than 100%" if value is None else f"{value:.0%}"


def drawn(page: str) -> str:
    """The page with today's table in place of the one it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{text()}{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Count the kernels where asked, and write the page."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--count", action="store_true", help="count the kernels anew: a minute of one core")
    if flags.parse_args(argv).count:
        keep(counted())
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
