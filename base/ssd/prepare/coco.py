"""Makes a data folder ready for a run: downloads and unpacks COCO 2017, or draws the demo set, and checks the folder.

`prepare` owns a folder if the folder has the manifest that `prepare` wrote when the folder was new or empty. Any other
folder is the user's: it is checked and indexed, and never written to. A part that the manifest records as complete, and
that still has the recorded size, is not made again. Every other part is.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd.data.annotations import sha256_of
from ssd.data.folder import other_layout
from ssd.errors import ConfigError, DataError
from ssd.files import write_whole
from ssd.locks import hold
from ssd.prepare.coco_folder import FolderReport, check_folder
from ssd.prepare.drawn import VERSION, draw_set
from ssd.prepare.fetch import Remote, Report, download, need_disk, verify
from ssd.prepare.unpack import unpack

__all__ = [
    "COCO",
    "MANIFEST",
    "Archive",
    "prepare_coco",
    "prepare_demo",
]

log = logging.getLogger(__name__)

MANIFEST = ".ssd-prepare.json"
LOCK = ".ssd-prepare.lock"
"""The lock file of a folder that is being written, so that two processes do not prepare it at the same time."""


@dataclass(frozen=True)
class Archive(Remote):
    """A zip archive. It unpacks to `folder` of the data directory, and takes about `unpacked` bytes there."""

    folder: str
    unpacked: int


def _coco(name: str, folder: str, path: str, size: int, sha256: str, unpacked: int) -> Archive:
    """An archive of COCO's server with its two addresses.

    The first is HTTPS by the bucket's path, because the server's certificate is for another name. The second is plain
    HTTP. That is safe, because the hash decides whether a file is accepted.
    """
    urls = (
        f"https://s3.amazonaws.com/images.cocodataset.org/{path}/{name}",
        f"http://images.cocodataset.org/{path}/{name}",
    )
    return Archive(name, urls, size, sha256, folder, unpacked)


COCO = (
    _coco(
        "annotations_trainval2017.zip",
        "annotations",
        "annotations",
        252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        1_300_000_000,
    ),
    _coco(
        "val2017.zip",
        "val2017",
        "zips",
        815_585_330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        850_000_000,
    ),
    _coco(
        "train2017.zip",
        "train2017",
        "zips",
        19_336_861_798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        20_000_000_000,
    ),
)
"""The archives of COCO 2017. The smallest comes first, so that a mistake shows before the long download."""


def prepare_coco(
    data_dir: Path,
    cache_dir: Path,
    *,
    from_dir: Path | None = None,
    archives: Sequence[Archive] = COCO,
    decode_all: bool = False,
    report: Report | None = None,
    **retries: Any,
) -> FolderReport:
    """Complete `data_dir` where it is new or owned by prepare, then check and index it. Returns what was found.

    from_dir: a folder with the zip archives, for a machine without a network. An archive that is not there is
    downloaded. A downloaded archive is removed after it is unpacked, and an archive of from_dir is kept. retries: see
    `download`. Raises DataError for bad data, and for a user's folder that is incomplete. Raises MachineError where the
    disk is too small. Raises ConfigError where no folder can be made, and where another process prepares it.
    """
    if _is_users(data_dir):
        _refuse_incomplete(data_dir, archives)
    else:
        _make_folder(data_dir)
        with hold(data_dir / LOCK, f"data_dir {data_dir}"):
            manifest = _claim(data_dir, "coco")
            todo = [archive for archive in archives if not _is_whole(data_dir, manifest, archive.folder)]
            _need_disk(data_dir, todo, from_dir)
            for archive in todo:
                _add(data_dir, manifest, archive, from_dir, report, retries)
    found = check_folder(data_dir, cache_dir, decode_all=decode_all)
    found.require()
    return found


def _add(
    data_dir: Path,
    manifest: dict[str, Any],
    archive: Archive,
    from_dir: Path | None,
    report: Report | None,
    retries: dict[str, Any],
) -> None:
    """Download or copy one archive, unpack it into the folder, and record it as complete in the manifest."""
    given = from_dir / archive.name if from_dir else None
    if given is not None and given.is_file():
        verify(given, archive)
        source = given
    else:
        if given is not None:
            log.warning("%s is not there: fetching it", given)
        source = download(archive, data_dir / archive.name, report=report, **retries)
    target = data_dir / archive.folder
    shutil.rmtree(target, ignore_errors=True)  # what an earlier call made and did not complete
    unpack(source, target, report=report)
    manifest["parts"][archive.folder] = _measure(target)
    _write_manifest(data_dir, manifest)
    if source != given:
        source.unlink()


def prepare_demo(data_dir: Path, cache_dir: Path, *, train: int = 400, val: int = 64, seed: int = 0) -> FolderReport:
    """Draw the demo set into `data_dir` unless the same set is there and complete. Then check and index it.

    train, val: the number of images. Raises DataError where the folder has files that prepare did not make.
    """
    if _is_users(data_dir):
        raise DataError(f"{data_dir} holds files that prepare did not make: name a new folder for the demo set")
    _make_folder(data_dir)
    with hold(data_dir / LOCK, f"data_dir {data_dir}"):
        _draw(data_dir, {"train": train, "val": val, "seed": seed})
    return check_folder(data_dir, cache_dir)


def _draw(data_dir: Path, arguments: dict[str, int]) -> None:
    """Draw the demo set into a folder of prepare's, unless the same set is there and complete."""
    manifest = _claim(data_dir, "demo")
    wanted = {"version": VERSION, **arguments}
    recorded = manifest["parts"].get("set")
    if (
        not isinstance(recorded, dict)
        or recorded.get("arguments") != wanted
        or recorded.get("files") != _hashes(data_dir)
    ):
        scratch = data_dir / ".drawing"
        shutil.rmtree(scratch, ignore_errors=True)
        draw_set(scratch, **arguments)
        for part in sorted(scratch.iterdir()):
            shutil.rmtree(data_dir / part.name, ignore_errors=True)
            part.rename(data_dir / part.name)
        scratch.rmdir()
        manifest["parts"]["set"] = {"arguments": wanted, "files": _hashes(data_dir)}
        _write_manifest(data_dir, manifest)


def _is_users(data_dir: Path) -> bool:
    """Whether a folder is the user's: it has files, and prepare's manifest is not among them, not even begun."""
    if os.path.exists(data_dir) and not data_dir.is_dir():
        raise DataError(f"{data_dir} is a file; data_dir is a folder")
    if not os.path.isdir(data_dir) or (data_dir / MANIFEST).is_file():
        return False
    return any(entry.name not in (LOCK, f"{MANIFEST}.part") for entry in data_dir.iterdir())


def _make_folder(data_dir: Path) -> None:
    """Make the data folder. Raises ConfigError where that is not possible."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"data_dir = {data_dir}: no folder can be made there ({error.strerror}); name another place"
        ) from error


def _refuse_incomplete(data_dir: Path, archives: Sequence[Archive]) -> None:
    """Raise DataError where a folder of the user lacks a part."""
    absent = [archive.folder for archive in archives if not (data_dir / archive.folder).is_dir()]
    if absent:
        raise DataError(
            f"{data_dir} lacks {', '.join(absent)}, and prepare writes nothing into a folder it did not make: add what "
            "is missing, or name a new or empty folder (with from_dir, if the archives are at hand). "
            f"{other_layout(data_dir)}".rstrip()
        )


def _claim(data_dir: Path, kind: str) -> dict[str, Any]:
    """The manifest of a folder of prepare's. It is written into a new or empty folder.

    Raises DataError where the manifest is damaged, or is that of another kind of set.
    """
    path = data_dir / MANIFEST
    if path.is_file():
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found, _ = manifest["kind"], manifest["parts"].items()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise DataError(f"{path} is damaged ({error}); remove it and the folder, and run prepare again") from error
        if found != kind:
            raise DataError(f"{data_dir} holds the {found} set: name another folder for the {kind} set")
        return manifest
    manifest = {"made_by": "ssd prepare", "kind": kind, "parts": {}}
    _write_manifest(data_dir, manifest)
    return manifest


def _write_manifest(data_dir: Path, manifest: dict[str, Any]) -> None:
    write_whole(data_dir / MANIFEST, json.dumps(manifest, indent=1))


def _is_whole(data_dir: Path, manifest: dict[str, Any], part: str) -> bool:
    """Whether the manifest has a part, and the part has the recorded numbers of files and bytes."""
    return part in manifest["parts"] and manifest["parts"][part] == _measure(data_dir / part)


def _measure(folder: Path) -> dict[str, int]:
    """The numbers of files and bytes under a folder. Both are 0 where there is no folder."""
    sizes = [entry.stat().st_size for entry in folder.rglob("*") if entry.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _hashes(data_dir: Path) -> dict[str, str]:
    """The SHA-256 of every file of a small set, by its path. Hidden files are left out."""
    files = sorted(path for path in data_dir.glob("[!.]*/*") if path.is_file())
    return {str(path.relative_to(data_dir)): sha256_of(path) for path in files}


def _need_disk(data_dir: Path, todo: Sequence[Archive], from_dir: Path | None) -> None:
    """Raise MachineError unless everything that is missing will fit on the disk (42 GB for all of COCO).

    It is called before the first byte is downloaded.
    """
    needed = 0
    for archive in todo:
        needed += archive.unpacked
        if from_dir is None or not (from_dir / archive.name).is_file():
            part = data_dir / f"{archive.name}.part"
            needed += archive.size - (part.stat().st_size if part.is_file() else 0)
    if todo:
        need_disk(data_dir, needed, "preparing " + ", ".join(archive.name for archive in todo))
