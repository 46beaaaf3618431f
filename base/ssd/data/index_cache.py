"""Keeps indexes of annotation files in `cache_dir`: parsed once, then loaded in milliseconds by each process.

An index is one .npz file, named after the sha256 of its annotation file. An .npz is a zip archive, which has a checksum
for every array. So a damaged cache is noticed while it is read, and then built again. A cache is used only where no
other user could have written it. Even then it is validated like any input. Nothing is written beside the annotation
file.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ssd.data.annotations import parse_annotations, sha256_of
from ssd.data.index import Index, require_sound
from ssd.data.texts import Ids, Packed, Texts
from ssd.trust import why_untrusted

__all__ = ["load_index"]

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of the cached arrays. Raise it when `Index` changes. Caches of older versions are then ignored."""
TEXTS: dict[str, type[Packed]] = {
    "image_ids": Ids,
    "file_names": Texts,
    "category_ids": Ids,
    "category_names": Texts,
}
"""Fields of an index that are stored as two arrays."""
DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, NotImplementedError, RuntimeError)
"""The errors that zipfile, numpy and `require_sound` raise for a file that is not a sound index. `load_index` adds the
error classes of zipfile and zlib."""


def load_index(path: Path, cache_dir: Path) -> Index:
    """The index of an annotation file. It comes from the cache if that has a sound one. Else it is parsed and cached.

    Raises DataError for an annotation file that cannot be used. Where the cache directory cannot be written, a warning
    is logged and the run goes on.
    """
    digest = sha256_of(path)
    cached = _cache_file(cache_dir, digest)
    if os.path.isfile(cached):
        try:
            return _read(cached, str(path), digest)
        except (*DAMAGED, zipfile.BadZipFile, zlib.error, MemoryError) as error:
            log.warning("%s is not used (%s): the index is built again from %s", cached, error, path)
    index = parse_annotations(path)
    try:
        _save(index, _cache_file(cache_dir, index.sha256))
    except OSError as error:
        log.warning("the index of %s is not cached in %s: %s", path, cache_dir, error)
    return index


def _cache_file(cache_dir: Path, digest: str) -> Path:
    return cache_dir.expanduser() / f"annotations-v{FORMAT}-{digest[:32]}.npz"


def _array_fields() -> list[str]:
    return [field.name for field in fields(Index) if field.name != "source" and field.name not in TEXTS]


def _save(index: Index, target: Path) -> None:
    """Write the index to a temporary file in the target's folder, and rename it.

    So several processes may save at the same time, and none of them reads a file that is half written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {field: getattr(index, field) for field in _array_fields()}
    for field in TEXTS:
        texts = getattr(index, field)
        arrays |= {f"{field}_content": texts.content, f"{field}_ends": texts.ends}
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(cached: Path, source: str, digest: str) -> Index:
    """Load a cache file. Raises one of DAMAGED, or an error of zipfile or zlib, where it cannot be used."""
    with cached.open("rb") as file:
        if reason := why_untrusted(os.fstat(file.fileno())):
            raise ValueError(reason)
        with np.load(file, allow_pickle=False) as arrays:
            values: dict[str, Any] = {field: arrays[field] for field in _array_fields()}
            for field, kind in TEXTS.items():
                values[field] = kind(arrays[f"{field}_content"], arrays[f"{field}_ends"])
    values["sha256"] = str(values["sha256"])
    if values["sha256"] != digest:
        raise ValueError(f"it was made from another file, {values['sha256'][:8]}...")
    index = Index(source=source, **values)
    require_sound(index)
    return index
