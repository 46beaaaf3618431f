"""Whether a file of a cache may be believed: one that another user could have written may hold anything.

Two things in a cache can do harm: a library of kernels, whose code runs as soon as it is loaded, and an index of file
names, which a run opens. Both ask here before they read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["make_folder", "why_path_untrusted", "why_untrusted"]


def why_untrusted(status: os.stat_result) -> str:
    """Why a file or folder with this status is not to be believed, in words; "" where it is.

    Its owner must be this user or root, and nobody else may write to it. A sticky folder (as /tmp is) may be written to
    by everybody, because nobody can replace the files of another there. Ask an open file (os.fstat): a name can come to
    mean another file between the question and the reading.
    """
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}"
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})"
    return ""


def why_path_untrusted(path: Path) -> str:
    """Why the file at `path` is not to be believed, naming the file or folder at fault; "" where it is.

    The promise of "": the file and its folder satisfy `why_untrusted`, and no folder above lets everybody replace what
    lies in it. This holds for the path as it is written and for the one that its links lead to. So nobody but this
    user, root, an owner of a folder above and members of its group can make the name mean another file afterwards.
    Raises OSError where there is no such file.
    """
    for one in dict.fromkeys((path.absolute(), path.resolve(strict=True))):
        for place in (one, one.parent):
            if reason := why_untrusted(place.stat()):
                return f"{place}: {reason}"
        for folder in one.parent.parents:
            mode = folder.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return f"{folder}: everybody may write to it (mode {stat.S_IMODE(mode):o})"
    return ""


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, writable by this user alone whatever the umask says."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(mode=0o755, exist_ok=True)
