"""Where the repository, base/config, the vendors' folders and the folders of runs are. It needs no torch.

A vendor's folder is a folder with a vendor.py. Such folders are looked for in the root of the repository, and in each
folder that the environment variable SSD_VENDOR_PATH names (separated as in PATH). So a vendor can have a repository of
its own.
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
    """The folder in which runs and campaigns without `--output` make their folders.

    The variable SSD_RUNS_DIR names it. Without that variable it is the repository's runs/. It does not depend on the
    current folder. Raises ConfigError where the variable's value cannot be a path.
    """
    named = environ.get(RUNS)
    try:
        return absolute_path(Path(named)) if named else ROOT / "runs"
    except ValueError as error:
        raise ConfigError(f"{RUNS} names {shortened(str(named))}: {error}. Correct or unset the variable.") from error


def vendor_folders(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """The folders of all vendors by name, sorted: folders with a vendor.py in the root or a folder of SSD_VENDOR_PATH.

    Raises ConfigError where SSD_VENDOR_PATH names something else than a folder. Raises it too where two vendors have
    the same name, because one would hide the other.
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
    """The folders of SSD_VENDOR_PATH, each once, without the root. Raises ConfigError for what is not a folder."""
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
    """The folder of a vendor. Raises ConfigError for an unknown name, with the known ones and where they were found."""
    folders = vendor_folders(environ)
    if name not in folders:
        raise ConfigError(
            f"no vendor is called {shortened(name)!r}.{did_you_mean(name, folders)} "
            f"Found: {', '.join(folders) or 'none'}. "
            f"A vendor is a folder with a vendor.py in {ROOT} or in a folder that {VENDOR_PATH} names."
        )
    return folders[name]


def display_path(path: Path) -> str:
    """A path for messages: relative to the repository if it lies inside it, else absolute."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
