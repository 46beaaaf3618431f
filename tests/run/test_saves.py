"""When a checkpoint is due by the time."""

from __future__ import annotations

import time

import pytest

from ssd.run.saves import Saves


def test_due_after_so_many_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    saves = Saves(keep=False)
    assert not saves.due(0)
    assert not saves.due(0.5)
    now += 29.9
    assert not saves.due(0.5)
    now += 0.1
    assert saves.due(0.5)
    assert not saves.due(0)
    saves.written()
    assert saves.keep
    assert not saves.due(0.5)
