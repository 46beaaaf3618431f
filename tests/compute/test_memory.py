"""The memory that a run is thought to take, worked by hand, and what the system says is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.compute.memory import available_bytes, required_bytes
from ssd.config import Config

PREFETCHED = 300 * 300 * 3


@pytest.mark.parametrize(
    ("keys", "mib", "prefetched"),
    [
        ({"train_batch_size": 8, "eval_batch_size": 8}, 900 + 8 * (25 + 115), 8),
        ({"train_batch_size": 1, "eval_batch_size": 80}, 900 + 80 * (15 + 5), 1),
        ({"train_batch_size": 8, "eval_batch_size": 8, "width": 0.5}, 900 + 8 * (25 + 57.5), 8),
        ({"train_batch_size": 1, "eval_batch_size": 80, "width": 0.5}, 900 + 80 * (15 + 2.5), 1),
    ],
)
@pytest.mark.parametrize(("processes", "prefetch"), [(1, 1), (3, 2)])
def test_memory_of_a_host(keys: dict, mib: float, prefetched: int, processes: int, prefetch: int) -> None:
    """A process, its larger batch, and its batches that wait; times the processes."""
    config = Config(**keys, pretrained=False, nproc_per_node=processes, prefetch=prefetch)
    expected = processes * (mib * 2**20 + prefetch * prefetched * PREFETCHED)
    assert required_bytes(config) == pytest.approx(expected, abs=2)


def test_available_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:   3 kB\n")
    assert available_bytes(tmp_path / "meminfo") == 3072
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\n")
    assert available_bytes(tmp_path / "meminfo") is None
    assert available_bytes(tmp_path / "absent") is None
