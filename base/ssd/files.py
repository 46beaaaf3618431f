"""Files that appear whole or not at all, whatever ends the process or the machine that writes them.

A file is written beside its name, as NAME.part. It is synced to the disk, renamed, and its folder is synced. So a
reader sees the old content or the new one, and after a power failure the same holds.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["keep_as", "sync_file", "sync_folder", "whole_file", "write_whole"]

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What `link` says on a file system where a file has one name."""
NO_FOLDER_SYNC = (errno.EINVAL, errno.EOPNOTSUPP)
"""What `fsync` says on a file system whose folders cannot be synced. It has nothing else to offer."""


def write_whole(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to the file at `path`, whole or not at all. Raises OSError as `whole_file` does."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A context with a new file, open for writing. At the end of the block it takes the place of the file at `path`.

    Raises OSError where the file cannot be written. Then, and where the block raises, `path` is as it was and nothing
    lies beside it. One error comes later: where the folder cannot be synced, `path` is new already.
    """
    part = _part(path)
    try:
        with part.open("wb") as file:
            yield file
            sync_file(file)
        part.replace(path)
    except BaseException:
        with suppress(OSError):  # what it was written for has failed, which is the error to report
            part.unlink()
        raise
    sync_folder(path.parent)


def sync_file(file: BinaryIO) -> None:
    """Sync what was written to an open file to the disk. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def keep_as(path: Path, other: Path) -> None:
    """Let the file at `path` be at `other` too, in place of the file there. Where `path` is missing, nothing is done.

    It is a second name of the same file, which costs nothing. On a file system without such names it is a copy. The
    folder is not synced. Raises OSError. Then `other` is as it was.
    """
    part = _part(other)
    part.unlink(missing_ok=True)  # a name that a killed run left, perhaps another one of the file at `path`
    try:
        os.link(path, part)
        part.replace(other)
        part.unlink(missing_ok=True)  # rename(2) leaves it there where both are names of one file
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with path.open("rb") as source, whole_file(other) as copy:
            shutil.copyfileobj(source, copy)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk. Otherwise a power failure could undo a renaming. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
