"""Paths that a user gives. `~` is expanded, and a path that no file can have is refused.

A file system would refuse such a path only when a file is made, perhaps in the middle of a run, and its error would not
name the key.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["absolute_path", "usable_path"]

LONGEST_NAME = 255
"""Bytes of a file's name, on every file system that Linux commonly has."""
LONGEST_PATH = 4096 - 256
"""Bytes of a path. Linux takes 4,095; the rest is for the files that a run puts into its folder."""


def absolute_path(path: Path) -> Path:
    """`path` as an absolute path, with `~` expanded. Raises ValueError, which says why no file can have this path."""
    try:
        return Path(os.path.abspath(usable_path(path)))
    except FileNotFoundError as error:
        raise ValueError("the folder that this command was given in has been removed: go to another") from error


def usable_path(path: Path) -> Path:
    """`path` with `~` expanded. Raises ValueError, which says why no file can have this path."""
    try:
        path = path.expanduser()
    except RuntimeError as error:  # ~somebody, or a user without a name in a container that sets no HOME
        raise ValueError(f"no home folder is known for {path.parts[0]}: write the path without ~") from error
    if "\0" in str(path):
        raise ValueError("a path cannot hold the character NUL")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise ValueError(f"a name in a path has at most {LONGEST_NAME} bytes")
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(f"a path has at most {LONGEST_PATH} bytes")
    return path
