"""Unpacks a zip archive into one folder: completely or not at all, and never outside of the folder."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ssd.errors import DataError
from ssd.prepare.fetch import Report, need_disk

__all__ = ["unpack"]


def unpack(archive: Path, folder: Path, *, report: Report | None = None) -> None:
    """Unpack `archive` to `folder`, which must not exist.

    All files of the archive must lie in a top folder with the name `folder.name`. They are written to a hidden folder
    beside `folder` and checked by the archive's CRCs. At the end the hidden folder is renamed. What an interrupted call
    left behind is removed first. Raises DataError for a file that is not a zip file or is damaged, and for a member
    that is a link or lies outside of the top folder. Raises MachineError where the disk is too small.
    """
    scratch = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as source:
            members = [member for member in source.infolist() if not member.is_dir()]
            for member in members:
                _refuse_unsafe(archive, member, folder.name)
            total = sum(member.file_size for member in members)
            need_disk(folder.parent, total, f"unpacking {archive.name}")
            done = 0
            for member in members:
                path = scratch / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.open(member) as packed, path.open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
                done += member.file_size
                if report is not None:
                    report(f"unpacking {archive.name}", done, total)
        if not members:
            raise DataError(f"{archive} is empty")
        os.rename(scratch / folder.name, folder)
    except (NotImplementedError, RuntimeError) as error:  # zipfile raises these for other methods, and for encryption
        raise DataError(
            f"{archive} cannot be unpacked: {error}; pack it anew, without encryption, by deflate"
        ) from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{archive} is damaged: {error}; fetch it again") from error
    except FileExistsError as error:
        raise DataError(f"{archive} holds {error.filename} twice") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # zipfile looks for a member before the beginning of the file
        raise DataError(f"{archive} is damaged: a member lies outside of the file; fetch it again") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_unsafe(archive: Path, member: zipfile.ZipInfo, top: str) -> None:
    """Raise DataError for a member that is not a plain file below the top folder."""
    path = PurePosixPath(member.filename)
    mode = member.external_attr >> 16
    plain = stat.S_IFMT(mode) in (0, stat.S_IFREG)
    below = len(path.parts) > 1 and path.parts[0] == top and ".." not in path.parts
    if not plain or not below or "\\" in member.filename:
        raise DataError(
            f"{archive} holds {member.filename!r}, which is not a plain file below {top}/; nothing was unpacked"
        )
