"""Configs are TOML files. A config is given by its name, in the vendor's config folder or base/config, or by its path.

A file may extend one other file, and then it states only what differs. `read_chain` reads such a chain as layers,
weakest first. A text that ends with .toml is a path. It is relative to the current folder, or to the folder of the file
that extends it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd.config.folders import BASE_CONFIGS, display_path
from ssd.config.nearest import did_you_mean
from ssd.config.paths import absolute_path
from ssd.config.vendor_keys import config_in, whose
from ssd.errors import ConfigError
from ssd.text import shortened

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Layer", "config_files", "config_name", "read_chain"]

SUFFIX = ".toml"

CHOSEN_OUTSIDE = ("name", "config")
"""Keys that choose the file. They cannot be set in a file."""


@dataclass(frozen=True)
class Layer:
    """The values of one source. source: its name in messages and provenance, where `{key}` is replaced by the key."""

    source: str
    values: dict[str, Any]

    def origin(self, key: str) -> str:
        """Where the value of a key of this layer came from, as text."""
        return self.source.replace("{key}", key)


def config_files(folder: Path) -> dict[str, Path]:
    """The configs of a folder by name, sorted. A name may contain dots: only the suffix .toml is taken off."""
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def config_name(config: str) -> str:
    """The name of a config that is given by its name, or as the path of its file."""
    return Path(config).stem if config.endswith(SUFFIX) else config


def read_chain(name: str, vendor_folder: Path) -> list[Layer]:
    """The layers of a config, weakest first. name: its name, or the path of its file.

    Raises ConfigError for an unknown name, a missing file, an unknown key, bad TOML, and files that extend each other
    in a circle.
    """
    chain: list[Path] = []
    layers: list[Layer] = []
    wanted: str | None = name
    while wanted is not None:
        path = _find(wanted, vendor_folder, asked_by=chain[-1] if chain else None)
        if path in chain:
            circle = " -> ".join(display_path(p) for p in [*chain, path])
            raise ConfigError(f"configs extend each other in a circle: {circle}. Take one `extends` out.")
        chain.append(path)
        values = _read(path, vendor_folder)
        wanted = values.pop("extends", None)
        layers.insert(0, Layer(display_path(path), values))
    return layers


def _find(name: str, vendor_folder: Path, asked_by: Path | None) -> Path:
    """The file of a config: the vendor's, else that of base/config.

    Where a vendor's file extends its own name, the file of base/config with this name is meant.
    """
    vendors, shared = config_files(vendor_folder / "config"), config_files(BASE_CONFIGS)
    if name.endswith(SUFFIX):
        return _file(name, asked_by, {**shared, **vendors})
    path = vendors.get(name)
    if path is None or path == asked_by:
        path = shared.get(name, path)
    if path is None:
        where = f"{display_path(asked_by)}: extends = {name!r}" if asked_by else f"--config {shortened(name)}"
        raise ConfigError(
            f"{where}: no such config.{did_you_mean(name, {**shared, **vendors})} "
            f"Of {vendor_folder.name}: {', '.join(vendors) or 'none'}. Of base: {', '.join(shared) or 'none'}."
        )
    return path


def _file(name: str, asked_by: Path | None, named: Mapping[str, Path]) -> Path:
    """The file at a path."""
    where = f"{display_path(asked_by)}: extends = {name!r}" if asked_by else f"--config {shortened(name)}"
    try:
        path = absolute_path((asked_by.parent if asked_by else Path()) / Path(name).expanduser())
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{where}: {error}.") from error
    if not path.is_file():
        raise ConfigError(f"{where}: no such file.{did_you_mean(config_name(name), named)}")
    return path


def _read(path: Path, vendor_folder: Path) -> dict[str, Any]:
    """The keys of one file. Unknown keys are refused here. Values are checked later, with those of other sources.

    The keys of the table `[VENDOR]` get the vendor's name in front of theirs.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of the file, or of its text: bytes, syntax, digits, nesting
        raise ConfigError(f"{display_path(path)}: not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{display_path(path)}: cannot be read: {error.strerror}") from error
    if isinstance(own := values.get(vendor := vendor_folder.name), dict):
        del values[vendor]
        values |= {f"{vendor}.{key}": value for key, value in own.items()}
    known = config_in(vendor_folder).model_fields
    for key, value in values.items():
        if key in CHOSEN_OUTSIDE:
            raise ConfigError(f"{display_path(path)}: {key} is chosen on the command line, not in a file. Take it out.")
        if key not in known and key != "extends":
            hint = whose(f"{key}." if isinstance(value, dict) else key, vendor) or did_you_mean(key, known)
            raise ConfigError(f"{display_path(path)}: unknown key {shortened(repr(key))}.{hint}")
    if not isinstance(values.get("extends", ""), str):
        raise ConfigError(
            f"{display_path(path)}: extends = {shortened(repr(values['extends']))}: must be the name of one config."
        )
    return values
