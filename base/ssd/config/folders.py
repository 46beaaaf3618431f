"""Where things lie: the repository, base/config, and the vendors' folders. No torch, so that a config resolves at once.

A vendor's folder is one that holds a vendor.py. It is searched for in the repository's root, and in each of the folders
that the environment variable SSD_VENDOR_PATH names (separated as in PATH): a vendor can live in its own repository.
Runs that are given no folder go to one place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ssd.config.nearest import did_you_mean
from ssd.config.paths import absolute_path, usable_path
from ssd.errors import ConfigError
from ssd.text import shortened

__all__ = [
    "BASE",
    "BASE_CONFIGS",
    "ROOT",
    "RUNS",
    "VENDOR_PATH",
    "display_path",
    "runs_folder",
    "searched_folders",
    "vendor_folder",
    "vendor_folders",
]

ROOT = Path(__file__).resolve().parents[3]
BASE = ROOT / "base"
BASE_CONFIGS = BASE / "config"
VENDOR_PATH = "SSD_VENDOR_PATH"
RUNS = "SSD_RUNS_DIR"


def runs_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where runs and campaigns go that are given no folder, whichever folder the command is given in.

    The variable SSD_RUNS_DIR names it, else it is the repository's runs/. ConfigError where it names no usable path.
    """
    named = environ.get(RUNS)
    try:
        return absolute_path(Path(named)) if named else ROOT / "runs"
    except ValueError as error:
        raise ConfigError(f"{RUNS} names {shortened(str(named))}: {error}. Correct or unset the variable.") from error


def vendor_folders(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Vendors by name, sorted: folders with a vendor.py in the repository's root and in each folder of SSD_VENDOR_PATH.

    ConfigError where SSD_VENDOR_PATH names no folder, or where two vendors have one name: neither may hide the other.
    """
    found: dict[str, Path] = {}
    for parent in [ROOT, *searched_folders(environ)]:
        for folder in sorted(path.parent for path in parent.glob("*/vendor.py")):
            if found.setdefault(folder.name, folder) != folder:
                raise ConfigError(
                    f"two vendors are called {folder.name!r}: {found[folder.name]} and {folder}. "
                    f"Rename one, or take it off {VENDOR_PATH}."
                )
    return dict(sorted(found.items()))


def searched_folders(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The folders of SSD_VENDOR_PATH, each once, without the repository's root. ConfigError where one is no folder."""
    parents: dict[Path, None] = {}
    for name in filter(None, environ.get(VENDOR_PATH, "").split(os.pathsep)):
        try:
            parent = usable_path(Path(name)).resolve()
        except (ValueError, RuntimeError) as error:  # RuntimeError: links that lead to each other
            raise ConfigError(f"{VENDOR_PATH} names {name}: {error}. Correct or unset the variable.") from error
        if not parent.is_dir():
            raise ConfigError(f"{VENDOR_PATH} names {parent}, which is not a folder. Correct or unset the variable.")
        parents[parent] = None
    return [parent for parent in parents if parent != ROOT]


def vendor_folder(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of a vendor. Unknown name: ConfigError that lists the vendors found and where they were looked for."""
    folders = vendor_folders(environ)
    if name not in folders:
        raise ConfigError(
            f"no vendor is called {shortened(name)!r}.{did_you_mean(name, folders)} "
            f"Found: {', '.join(folders) or 'none'}. "
            f"A vendor is a folder with a vendor.py in {ROOT} or in a folder that {VENDOR_PATH} names."
        )
    return folders[name]


def display_path(path: Path) -> str:
    """A path as messages show it: relative to the repository where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
