"""Power, temperature, memory and clock of the accelerators, read once a second beside the training.

A vendor supplies the reader of one device: a dict of TELEMETRY's keys, None for what the device does not tell. What
cannot be read never ends a run, and never counts as 0.
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
"""What is recorded of a device; the unit is in the name."""

Reading = Mapping[str, float | None]


class TelemetrySampler:
    """A thread that records all devices of this host until its context ends.

    Owner of its state: its own thread. The main thread only sets the event that ends it, and waits.
    read: device index -> reading; may be slow, may raise. write: called with one list a key of TELEMETRY, an entry a
    device, from this thread (`Metrics.write` takes it). interval: seconds from one record to the next; a slow reader
    loses records instead of piling them up.
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
        """Stop; waits for a reading under way, not for the interval."""
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
        except Exception as error:  # whatever a driver's library does, training goes on
            if not self._warned:
                log.warning("telemetry of device %d: %s: %s (said once)", index, type(error).__name__, error)
            self._warned = True
            return {}


@contextmanager
def recorded(
    read: Callable[[int], Reading], devices: int, write: Callable[..., None], interval: float
) -> Iterator[None]:
    """Record the devices inside (see TelemetrySampler), where `interval` is not 0 and there is anything to read."""
    if not interval or not _readable(read):
        yield
        return
    with TelemetrySampler(read, devices, write, interval):
        yield


def _readable(read: Callable[[int], Reading]) -> bool:
    """Whether there is anything to read; also where reading fails now: the sampler says how, and tries again."""
    try:
        return bool(read(0))
    except Exception:  # as in TelemetrySampler
        return True
