"""How a loader reads image files: what the config says of it, without the config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Reading"]


@dataclass(frozen=True)
class Reading:
    """How a loader reads image files.

    folder: the folder that the file names of an index are relative to. num_workers: the number of decoding threads.
    prefetch: the number of batches prepared ahead. corrupt_images: "stop" raises DataError for a training image that
    cannot be decoded, "skip" trains without it. pin_memory: deliver batches in page-locked memory. decoded_cache: the
    folder of a `DecodedCache`, which `ThreadLoader` alone uses.
    """

    folder: Path
    num_workers: int = 4
    prefetch: int = 2
    corrupt_images: Literal["stop", "skip"] = "stop"
    pin_memory: bool = False
    decoded_cache: Path | None = None
