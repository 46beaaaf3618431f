"""Fills a run's `decoded_cache` before the run: every training image is decoded once, by threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ssd.data.decoded_cache import DecodedCache
from ssd.data.folder import TRAIN, annotation_file
from ssd.data.index_cache import load_index
from ssd.data.loader import train_rows
from ssd.errors import DataError
from ssd.prepare.fetch import Report

__all__ = ["decode_images"]


def decode_images(folder: Path, data_dir: Path, cache_dir: Path, num_workers: int, report: Report) -> list[str]:
    """Decode the training images of data_dir that the cache in `folder` lacks; what was done, one fact a line.

    Raises DataError where images cannot be decoded, when all others have been, and MachineError where the cache cannot
    be made or has not the room.
    """
    index = load_index(annotation_file(data_dir, TRAIN), cache_dir)
    rows = train_rows(index)
    cache = DecodedCache(folder, index, rows, data_dir / TRAIN)
    done, lock = 0, threading.Lock()

    def fill(number: int) -> DataError | None:
        nonlocal done
        row, fault = int(rows[number]), None
        try:
            cache.fill(number, data_dir / TRAIN / index.file_names[row], index.image_ids[row])
        except DataError as error:
            fault = error
        with lock:
            done += 1
            report("decoded images", done, len(rows))
        return fault

    with ThreadPoolExecutor(num_workers, thread_name_prefix="ssd-decode") as pool:
        faults = [fault for fault in pool.map(fill, range(len(rows))) if fault]
    if faults:
        raise DataError(f"{len(faults)} of {len(rows)} training images cannot be decoded, the first: {faults[0]}")
    return [cache.words]
