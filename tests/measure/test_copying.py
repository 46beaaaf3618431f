"""The rate of copies to a device, on a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssd.measure import copying
from ssd.measure.copying import IMAGE_BYTES, copied_per_second


@pytest.mark.parametrize(("seconds", "copies"), [(3.0, 3), (2.5, 3), (0.0, 1)])
def test_copies_count_after_the_first_until_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, seconds: float, copies: int
) -> None:
    """A copy takes a second, and the first one nine: the device is opened."""
    now, asked = 0.0, []

    def synchronize() -> None:
        nonlocal now
        now += 1.0 if now else 9.0

    monkeypatch.setattr(copying.time, "perf_counter", lambda: now)
    monkeypatch.setattr(torch.Tensor, "to", lambda images, device, **how: asked.append((tuple(images.shape), device)))
    device: Any = SimpleNamespace(is_host=False, pinned_memory=False, device="there", synchronize=synchronize)
    assert copied_per_second(device, 2, seconds) == 2 * IMAGE_BYTES
    assert asked == [((2, 300, 300, 3), "there")] * (1 + copies)


def test_nothing_is_copied_where_the_device_is_the_host() -> None:
    host: Any = SimpleNamespace(is_host=True)
    assert copied_per_second(host, 2, 1.0) is None
    assert IMAGE_BYTES == 270_000
