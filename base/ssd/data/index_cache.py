"""Keeps indexes of annotation files in `cache_dir`: parsed once, then mapped in milliseconds by each process.

An index is one file of arrays (ssd.data.mapped), named after the sha256 of its annotation file. A second small file,
the stamp, says what the annotation file at a path looked like when it was hashed: its size, times and inode, and a hash
of 66 parts of it. While all of these are the same, the file is not hashed again. A file that changed less than two
seconds before it was hashed gets no stamp: it could change again within the same tick of the file system's clock.

What another user could have written is not used (ssd.trust). Damage is found by a checksum. An index whose checksum is
not the one in the stamp is checked field by field, like any input. Nothing is written beside the annotation file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ssd.data.annotations import parse_annotations, sha256_of
from ssd.data.index import Index, require_sound
from ssd.data.mapped import DAMAGED, checksum_of, map_arrays, write_arrays
from ssd.data.texts import Ids, Packed, Texts
from ssd.trust import why_untrusted

__all__ = ["load_index"]

log = logging.getLogger(__name__)

FORMAT = 3
"""Version of the cached arrays. Raise it when `Index` changes. Caches of older versions are then ignored."""
TEXTS: dict[str, type[Packed]] = {
    "image_ids": Ids,
    "file_names": Texts,
    "category_ids": Ids,
    "category_names": Texts,
}
"""Fields of an index that are stored as two arrays."""
FRESH_NS = 2 * 10**9
"""A file that changed so shortly before it was hashed gets no stamp. File systems count in steps of up to 2 s."""
PARTS, PART_BYTES = 64, 4096
"""So many parts of an annotation file are in its fingerprint, evenly spaced, besides 64 KiB at either end."""
END_BYTES = 1 << 16


@dataclass(frozen=True)
class _Stamp:
    """What an annotation file looked like when it was hashed, and the checksum of its index.

    size in bytes, modified and changed in ns, inode: by stat. fingerprint: the sha256 of parts of it.
    """

    size: int
    modified: int
    changed: int
    inode: int
    fingerprint: str
    sha256: str
    checksum: int


def load_index(path: Path, cache_dir: Path) -> Index:
    """The index of an annotation file. It comes from the cache if that has a sound one. Else it is parsed and cached.

    Raises DataError for an annotation file that cannot be used. Where the cache directory cannot be written, a warning
    is logged and the run goes on.
    """
    cache_dir = cache_dir.expanduser()
    if (stamp := _stamp(path, cache_dir)) and (found := _cached(path, cache_dir, stamp.sha256, stamp.checksum)):
        return found[0]
    begun = time.time_ns()
    before = _look(path)
    digest = sha256_of(path)
    if found := _cached(path, cache_dir, digest):
        index, checksum = found
    else:
        index = parse_annotations(path)
        try:
            checksum = _save(index, _cache_file(cache_dir, index.sha256))
        except OSError as error:
            log.warning("the index of %s is not cached in %s: %s", path, cache_dir, error)
            return index
    if before is None or max(before["modified"], before["changed"]) >= begun - FRESH_NS:
        return index
    if index.sha256 == digest and before == _look(path):
        _keep_stamp(_stamp_file(path, cache_dir), _Stamp(**before, sha256=digest, checksum=checksum))
    return index


def _cached(path: Path, cache_dir: Path, digest: str, checksum: int | None = None) -> tuple[Index, int] | None:
    """The index of the annotation file with this sha256, and its checksum; None where the cache has no sound one."""
    cached = _cache_file(cache_dir, digest)
    if not os.path.isfile(cached):
        return None
    try:
        return _read(cached, str(path), digest, checksum)
    except DAMAGED as error:
        log.warning("%s is not used (%s): the index is built again from %s", cached, error, path)
        return None


# Stamps


def _stamp_file(path: Path, cache_dir: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    return cache_dir / f"annotations-v{FORMAT}-{name[:32]}.stamp"


def _look(path: Path) -> dict[str, Any] | None:
    """What a file looks like now: the first fields of a stamp. None where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            fingerprint = _fingerprint(file.fileno(), status.st_size)
    except (OSError, ValueError):
        return None
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
        "inode": status.st_ino,
        "fingerprint": fingerprint,
    }


def _fingerprint(handle: int, size: int) -> str:
    digest = hashlib.sha256()
    for length, place in ((END_BYTES, 0), (END_BYTES, max(size - END_BYTES, 0))):
        digest.update(os.pread(handle, length, place))
    for part in range(PARTS):
        digest.update(os.pread(handle, PART_BYTES, size * part // PARTS))
    return digest.hexdigest()


def _stamp(path: Path, cache_dir: Path) -> _Stamp | None:
    """The stamp of an annotation file, where there is one and the file still looks as it says."""
    try:
        with _stamp_file(path, cache_dir).open("rb") as file:
            if why_untrusted(os.fstat(file.fileno())):
                return None
            stamp = _Stamp(**json.loads(file.read(10_000)))
    except DAMAGED:  # also where there is none: then the file is hashed
        return None
    now = _look(path)
    return stamp if now is not None and all(getattr(stamp, name) == value for name, value in now.items()) else None


def _keep_stamp(file: Path, stamp: _Stamp) -> None:
    """Write a stamp. Where that fails, the next process hashes the annotation file again, and nothing else is lost."""
    part = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        part.write_text(json.dumps(asdict(stamp)), encoding="utf-8")
        part.chmod(0o644)  # whatever the umask says: a stamp that others may write to is not believed
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)


# Indexes


def _cache_file(cache_dir: Path, digest: str) -> Path:
    return cache_dir.expanduser() / f"annotations-v{FORMAT}-{digest[:32]}.arrays"


def _array_fields() -> list[str]:
    return [field.name for field in fields(Index) if field.name not in ("source", "sha256", *TEXTS)]


def _save(index: Index, target: Path) -> int:
    """Write the index to a file of arrays; its checksum."""
    arrays: dict[str, Any] = {field: getattr(index, field) for field in _array_fields()}
    for field in TEXTS:
        texts = getattr(index, field)
        arrays |= {f"{field}_content": texts.content, f"{field}_ends": texts.ends}
    arrays["sha256"] = np.frombuffer(index.sha256.encode(), np.uint8)
    return write_arrays(target, arrays)


def _read(cached: Path, source: str, digest: str, known: int | None = None) -> tuple[Index, int]:
    """Map a cache file; its index and its checksum. Raises one of DAMAGED where it cannot be used.

    known: the checksum of a file that was found sound before. A file with another one is checked field by field.
    """
    with cached.open("rb") as file:
        if reason := why_untrusted(os.fstat(file.fileno())):
            raise ValueError(reason)
        checksum = checksum_of(file)
        arrays = map_arrays(file)
    values: dict[str, Any] = {field: arrays[field] for field in _array_fields()}
    for field, kind in TEXTS.items():
        values[field] = kind(arrays[f"{field}_content"], arrays[f"{field}_ends"])
    values["sha256"] = arrays["sha256"].tobytes().decode()
    if values["sha256"] != digest:
        raise ValueError(f"it was made from another file, {values['sha256'][:8]}...")
    index = Index(source=source, **values)
    if checksum != known:
        require_sound(index)
    return index, checksum
