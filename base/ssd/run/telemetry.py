"""Records power, temperature, memory and clock of the accelerators once a second during the training.

A vendor supplies the reader of one device. It returns a dict with TELEMETRY's keys, and None for what the device does
not report. A value that cannot be read never ends a run, and is never recorded as 0.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

__all__ = ["TELEMETRY", "Reading", "TelemetrySampler", "recorded"]

log = logging.getLogger(__name__)

TELEMETRY = ("power_w", "temperature_c", "memory_mib", "clock_mhz", "use_percent")
"""What is recorded of a device. The unit is in the name."""

Reading = Mapping[str, float | None]


class TelemetrySampler:
    """A context with a thread that records all devices of this host.

    read: returns the reading of a device, by its index. It may be slow, and it may raise. devices: their number. write:
    called in the thread, as `Metrics.write` allows, with one list for each key of TELEMETRY, which has a value for each
    device. interval: seconds from one record to the next. Where `read` is slower than that, there are fewer records.

    Threads: the thread owns all state. The main thread only sets the event that ends the thread, and joins it.
    """

    def __init__(
        self, read: Callable[[int], Reading], devices: int, write: Callable[..., None], interval: float = 1.0
    ) -> None:
        self._read, self._devices, self._write, self._interval = read, devices, write, interval
        self._stop = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> TelemetrySampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread. A reading under way is finished, but the rest of the interval is not waited for."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            readings = [self._reading(index) for index in range(self._devices)]
            self._write(**{key: [reading.get(key) for reading in readings] for key in TELEMETRY})
            due = max(due + self._interval, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def _reading(self, index: int) -> Reading:
        try:
            return self._read(index)
        except Exception as error:  # of any class: an error in a driver's library must not end the training
            if not self._warned:
                log.warning("telemetry of device %d: %s: %s (said once)", index, type(error).__name__, error)
            self._warned = True
            return {}


@contextmanager
def recorded(
    read: Callable[[int], Reading], devices: int, write: Callable[..., None], interval: float
) -> Iterator[None]:
    """A context in which the devices are recorded (see TelemetrySampler). A no-op for interval 0, or no readings."""
    if not interval or not _readable(read):
        yield
        return
    with TelemetrySampler(read, devices, write, interval):
        yield


def _readable(read: Callable[[int], Reading]) -> bool:
    """Whether the device has readings. True also where `read` raises: the sampler logs the error, and tries again."""
    try:
        return bool(read(0))
    except Exception:  # as in TelemetrySampler
        return True
