"""The sampler: what it writes, that it stops promptly, and that no reader can end a run."""

from __future__ import annotations

import logging
import threading

import pytest

from ssd.run.telemetry import TELEMETRY, TelemetrySampler, recorded


class Records:
    """Takes what is written; `wait_for(n)` returns when there are n records."""

    def __init__(self) -> None:
        self.all: list[dict] = []
        self._arrived = threading.Condition()

    def write(self, **record: list) -> None:
        with self._arrived:
            self.all.append(record)
            self._arrived.notify()

    def wait_for(self, count: int) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.all) >= count, timeout=30)


def test_one_list_a_key_with_an_entry_a_device() -> None:
    records = Records()
    with TelemetrySampler(lambda index: {"power_w": 100.0 + index, "clock_mhz": None}, 2, records.write, 0.01):
        records.wait_for(3)
    first = records.all[0]
    assert tuple(first) == TELEMETRY
    assert first["power_w"] == [100.0, 101.0]
    assert first["clock_mhz"] == first["memory_mib"] == [None, None]
    assert records.all[1] == first


def test_it_stops_without_waiting_for_the_interval_and_writes_nothing_after() -> None:
    records = Records()
    with TelemetrySampler(lambda index: {"power_w": 1.0}, 1, records.write, interval=3600):
        records.wait_for(1)
    assert len(records.all) == 1
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())


def test_a_device_that_cannot_be_read_is_unknown_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def read(index: int) -> dict[str, float | None]:
        if index == 1:
            raise OSError("GPU is lost")
        return {"power_w": 5.0}

    records = Records()
    with caplog.at_level(logging.WARNING), TelemetrySampler(read, 2, records.write, 0.01):
        records.wait_for(3)
    assert all(record["power_w"] == [5.0, None] for record in records.all)
    assert [record.message for record in caplog.records] == ["telemetry of device 1: OSError: GPU is lost (said once)"]


def test_a_slow_reader_does_not_pile_records_up() -> None:
    """After a reading that took 50 intervals the next one follows, not 50 of them at once."""
    records, called = Records(), []

    def read(index: int) -> dict[str, float | None]:
        called.append(index)
        if len(called) == 1:
            threading.Event().wait(0.5)
        return {}

    with TelemetrySampler(read, 1, records.write, interval=0.4):
        records.wait_for(1)
        threading.Event().wait(0.1)
    assert len(records.all) <= 2


def test_an_error_inside_ends_the_thread_too() -> None:
    with pytest.raises(ZeroDivisionError), TelemetrySampler(lambda index: {}, 1, Records().write, 3600):
        _ = 1 / 0
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())


def test_a_reader_that_fails_at_once_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    """NVML finds no device of torch's name, for instance."""
    records, calls = Records(), []

    def read(index: int) -> dict[str, float | None]:
        calls.append(index)
        if len(calls) < 3:
            raise OSError("not found")
        return {"power_w": 7.0}

    with caplog.at_level(logging.WARNING), recorded(read, 1, lambda kind=None, **fields: records.write(**fields), 0.01):
        records.wait_for(2)
    assert [record["power_w"] for record in records.all[:2]] == [[None], [7.0]]
    assert "not found (said once)" in caplog.text


@pytest.mark.parametrize("interval", [0.0, 0.01])
def test_nothing_is_recorded_where_there_is_nothing_to_read(interval: float) -> None:
    records = Records()
    with recorded(lambda index: {}, 1, records.write, interval):
        assert not any(thread.name == "telemetry" for thread in threading.enumerate())
    assert not records.all


def test_a_hundred_samplers_end_while_they_write() -> None:
    """Started and stopped at every moment of a reading: no record after the end, none half, no thread left."""
    for _ in range(100):
        records = Records()
        with TelemetrySampler(lambda index: {"power_w": float(index)}, 3, records.write, interval=0):
            records.wait_for(1)
        count = len(records.all)
        assert all(record["power_w"] == [0.0, 1.0, 2.0] for record in records.all)
        assert len(records.all) == count
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())
