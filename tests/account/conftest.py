"""Records of a run as metrics.jsonl holds them, made to measure: clean, or with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

EPOCHS, STEPS, EPOCH_S = 12, 40, 60.0


def clean_records() -> list[dict[str, Any]]:
    """A clean run of two ranks: 12 epochs of a minute with the small jitter of a real one, 3 evaluations, telemetry."""
    records: list[dict[str, Any]] = [{"kind": "start"}, {"kind": "set_up", "parts": {}}]
    for epoch in range(1, EPOCHS + 1):
        jitter = 1 + 0.01 * ((epoch * 7) % 5 - 2)
        seconds = EPOCH_S * jitter * (1.08 if epoch == 1 else 1.0)
        for interval in range(1, 5):
            step = (epoch - 1) * STEPS + interval * STEPS // 4
            loss = 8.0 / (1 + 0.05 * step) * (1 + 0.03 * ((step * 3) % 4 - 1.5))
            rate = 1000.0 / jitter * (1 + 0.01 * (interval % 2))
            records.append({"kind": "train", "step": step, "epoch": epoch, "loss": loss, "images_per_s": rate})
            records.append(
                {
                    "kind": "telemetry",
                    "use_percent": [97.0, 98.0],
                    "clock_mhz": [1400.0 + 15 * (step % 4), 1410.0],
                    "temperature_c": [70.0, 72.0],
                }
            )
        ranks = [
            {
                "data_wait": 1.0 + 0.2 * rank,
                "step": seconds - 1 - 0.2 * rank,
                "forward": 0.5,
                "memory_mib": 4000.0 + epoch % 3,
            }
            for rank in range(2)
        ]
        records.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "step": epoch * STEPS,
                "skipped_steps": 2,
                "skipped_images": 0,
                "sampled": {"steps": [epoch * STEPS - 5], "seconds": {"forward": 0.5, "backward": 0.9}},
                "ranks": ranks,
            }
        )
        if epoch % 4 == 0:
            parts = {
                "eval_images": 0.5,
                "eval_forward": 5.0,
                "eval_detect": 2.0,
                "eval_gather": 0.5,
                "eval_metric": 1.5,
            }
            records.append({"kind": "evaluation", "epoch": epoch, "AP": 0.05 * epoch / 4, "seconds": parts})
            records.append({"kind": "checkpoint", "seconds": 0.8 + 0.05 * (epoch % 3), "bytes": 160_000_000})
    return records


@pytest.fixture
def records() -> Callable[..., list[dict[str, Any]]]:
    """Clean records, after `change` was called with each one of a kind: change(record, its number from 1)."""

    def make(kind: str = "", change: Callable[[dict[str, Any], int], Any] | None = None) -> list[dict[str, Any]]:
        found = clean_records()
        if change:
            for number, record in enumerate((one for one in found if one["kind"] == kind), 1):
                change(record, number)
        return found

    return make
