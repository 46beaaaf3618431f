"""Downloads a file of known size and hash. A cut download is resumed, and the file is verified before it gets its name.

Bytes are written to <name>.part. The file is renamed only after size and SHA-256 agree, so a file with its own name is
complete. The code uses the HTTP client of the standard library. Of the libraries for downloads, requests adds three
dependencies and pooch does not resume, and resuming is the part that must be right. Proxies are those of the usual
environment variables.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from ssd.data.annotations import sha256_of
from ssd.errors import DataError, MachineError
from ssd.text import counted

__all__ = ["Remote", "Report", "console_report", "download", "need_disk", "verify"]

log = logging.getLogger(__name__)

BLOCK = 1 << 16
"""Bytes of one read from the network."""
FIRST_ATTEMPTS, FIRST_TIMEOUT = 3, 10.0
"""Attempts, and seconds to wait for a byte, of an address that has given no byte yet: there may be no network."""

Report = Callable[[str, int, int], None]
"""A function that a long task calls with its name, the amount that is done, and the whole amount."""


@dataclass(frozen=True)
class Remote:
    """A file to download. urls: its addresses, tried in this order. size: in bytes. sha256: 64 hex digits."""

    name: str
    urls: tuple[str, ...]
    size: int
    sha256: str


class _MirrorError(Exception):
    """An address will never give the file, so it is not tried again."""


def verify(path: Path, remote: Remote) -> None:
    """Raise DataError unless the file at `path` has the size and the SHA-256 of `remote`."""
    if not path.is_file():
        raise DataError(f"{path} is missing")
    if (size := path.stat().st_size) != remote.size:
        raise DataError(f"{path} has {size:,} bytes, {remote.name} has {remote.size:,}; remove it and fetch it again")
    if (digest := sha256_of(path)) != remote.sha256:
        raise DataError(
            f"{path} is not {remote.name}: its sha256 is {digest}, not {remote.sha256}; remove it and fetch it again"
        )


def need_disk(folder: Path, size: int, purpose: str) -> None:
    """Raise MachineError unless the disk of `folder`, which need not exist yet, has `size` bytes free.

    purpose: what needs the bytes, for the message.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise MachineError(
            f"{purpose} needs {size / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free; "
            "make room or name a folder on another disk"
        )


def download(
    remote: Remote,
    target: Path,
    *,
    report: Report | None = None,
    attempts: int = 8,
    backoff: float = 1.0,
    timeout: float = 60.0,
) -> Path:
    """Download `remote` to `target`, and return `target`. It exists only once it is complete. If it exists, verify it.

    A cut connection is resumed after `backoff` seconds. Each further pause is twice as long, up to 60 seconds. An
    address is given up when `attempts` connections in a row brought no new byte, and when it has no such file, another
    size or a wrong hash. Nothing was cut before the first byte: an address that cannot be reached then is given up at
    once, and one that is busy after FIRST_ATTEMPTS. Then the next address is tried. timeout: seconds to wait for a
    byte. Raises DataError where no address is left, and MachineError where the disk is too small.
    """
    if target.exists():
        verify(target, remote)
        return target
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    need_disk(target.parent, max(0, remote.size - have), f"fetching {remote.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    reasons: list[str] = []
    for url in remote.urls:
        try:
            _fetch(url, remote, part, report, attempts, backoff, timeout)
            _accept(part, target, remote)
            return target
        except (_MirrorError, OSError, http.client.HTTPException) as error:
            log.warning("%s: %s", url, error)
            reasons.append(f"{url}: {error}")
    raise DataError(
        f"{remote.name} could not be fetched. Run again to go on. Without a network, fetch it elsewhere and name "
        f"its folder by --from_dir. Tried: {'; '.join(reasons)}"
    )


def _accept(part: Path, target: Path, remote: Remote) -> None:
    """Give a complete .part file its name. If its hash is wrong, remove it and raise _MirrorError."""
    if (digest := sha256_of(part)) != remote.sha256:
        part.unlink()
        raise _MirrorError(f"what it served is not {remote.name}: sha256 {digest}, not {remote.sha256}; removed")
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, target)


def _fetch(
    url: str, remote: Remote, part: Path, report: Report | None, attempts: int, backoff: float, timeout: float
) -> None:
    """Fill `part` to its full size from one address, with as many connections as are needed."""
    fruitless, most = 0, 0
    started = part.stat().st_size if part.exists() else 0
    while (have := part.stat().st_size if part.exists() else 0) != remote.size:
        if have > remote.size:
            part.unlink()
            continue
        reason: object = "the connection ended early"
        try:
            given = max(most, have) > started
            _request(url, remote, part, have, report, timeout if given else min(timeout, FIRST_TIMEOUT))
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the server lacks the bytes we ask for, so our part is not the start of its file
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise _MirrorError(f"HTTP {error.code} {error.reason}") from error
            reason = error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise _MirrorError(f"its certificate is for another host: {error.reason}") from error
            if not given:  # no name, no route or no answer. Nothing was cut, and trying again is useless.
                raise _MirrorError(f"no network reaches it: {error.reason}") from error
            reason = error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
                raise MachineError(f"{part} cannot be written: {error.strerror}") from error
            reason = error
        now = part.stat().st_size if part.exists() else 0
        if now == remote.size:
            return
        # Compared with the most bytes there ever were, because a server that cannot resume starts over each time, and
        # that must not go on for ever.
        fruitless = 0 if now > max(have, most) else fruitless + 1
        most = max(now, have, most)
        limit = attempts if most > started else min(attempts, FIRST_ATTEMPTS)
        if fruitless >= limit:
            raise ConnectionError(f"nothing new in {counted(limit, 'attempt')}, the last: {reason}")
        log.info("%s: %s; resuming at %d of %d bytes", url, reason, now, remote.size)
        time.sleep(min(60.0, backoff * 2**fruitless))


def _request(url: str, remote: Remote, part: Path, have: int, report: Report | None, timeout: float) -> None:
    """Make one connection. Append what it sends from byte `have` on, or start over where the server cannot resume."""
    request = urllib.request.Request(url, headers={"User-Agent": "ssd-prepare", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if response.status == 206:
            served = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if served is None or int(served[1]) != have:
                raise _MirrorError(f"asked for byte {have} on, it answered {response.headers.get('Content-Range')!r}")
            if served[2] not in ("*", str(remote.size)):
                raise _MirrorError(f"it has {served[2]} bytes, not {remote.size}")
        else:
            have = 0
        with part.open("ab" if have else "wb") as file:
            _copy(response, file, remote, have, report)


def _copy(response: http.client.HTTPResponse, file: BinaryIO, remote: Remote, have: int, report: Report | None) -> None:
    """Append the response's body. More bytes than the file has are refused, whatever Content-Length says."""
    # read1 returns what has arrived. read(n) would wait for n bytes, and would lose those that had arrived when the
    # connection is cut.
    while block := response.read1(BLOCK):
        have += len(block)
        if have > remote.size:
            file.truncate(0)
            raise _MirrorError(f"it sends more than the {remote.size} bytes of {remote.name}")
        file.write(block)
        if report is not None:
            report(remote.name, have, remote.size)


@contextlib.contextmanager
def console_report() -> Iterator[Report]:
    """A context with a `Report` that draws progress bars on a terminal. Without a terminal it logs every tenth."""
    console = Console(stderr=True)
    if not console.is_terminal:
        tenths: dict[str, int] = {}

        def line(name: str, done: int, total: int) -> None:
            tenth = 10 * done // max(1, total)
            if tenths.get(name) != tenth:
                tenths[name] = tenth
                log.info("%s: %d%%", name, 10 * tenth)

        yield line
        return
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def bar(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield bar
