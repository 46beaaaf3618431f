"""A folder or file that one process at a time may write: a small lock file says which process that is.

The kernel holds the lock (`flock`) and gives it back when its process ends, however it ends, so no lock is ever stale.
The file's text is for people alone. Threads and child processes of the holder do not count as other processes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssd.errors import ConfigError
from ssd.text import shortened, visible

__all__ = ["hold"]

log = logging.getLogger(__name__)

UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What `flock` says on a file system without locks."""


@contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path` while the block runs. The file is made, and removed at the end.

    what: the thing that the lock protects, for the message. Raises ConfigError, at once and without waiting, where
    another process holds the lock; the message names its process id and its host. Raises OSError where the file cannot
    be made. A file system without locks is said in a warning, and the block runs unprotected.
    """
    handle = _locked(path, what)
    try:
        yield
    finally:
        # The file is removed while the lock is still held: a process that waits to lock a removed file looks again.
        with suppress(OSError):  # a lock file that stays is no lock
            path.unlink()
        os.close(handle)


def _locked(path: Path, what: str) -> int:
    """The descriptor of the lock file, locked, with this process named in it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            _lock(handle, path, what)
            if _is_the_file(handle, path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path, what: str) -> None:
    """Lock an open file. ConfigError where another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"{what} is in use by {_holder(handle)}: wait until it ends, or name another place ({path} is its lock)"
        ) from error
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        log.warning("%s: this file system has no locks (%s); let no other process write %s", path, error.strerror, what)


def _is_the_file(handle: int, path: Path) -> bool:
    """Whether the locked file still has its name. Another process may have removed it before we locked it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    """Who holds the lock, by what its file says."""
    try:
        said = json.loads(os.pread(handle, 1000, 0))
        return f"process {int(said['pid'])} on host {shortened(visible(str(said['host'])), 80)}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
