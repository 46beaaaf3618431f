"""When a run has last written its checkpoint, and whether that one is worth keeping beside the next."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Saves"]


@dataclass
class Saves:
    """What is known of the newest checkpoint, `checkpoint.pt`. Only Run.save changes it.

    keep: whether it is kept as the previous one when the next one is written. A run that goes on from the previous one
    does not keep the newest, which is damaged. at: when it was written, or else when this process began to train, in
    seconds of time.monotonic.
    """

    keep: bool = True
    at: float = field(default_factory=lambda: time.monotonic())

    def due(self, minutes: float) -> bool:
        """Whether the next one is due, where `minutes` may lie between two. 0: the time asks for none."""
        return minutes > 0 and time.monotonic() - self.at >= 60 * minutes

    def written(self) -> None:
        """Note that one was written just now."""
        self.keep, self.at = True, time.monotonic()
