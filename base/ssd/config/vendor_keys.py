"""Keys that a vendor adds to those of a run, declared in keys.py of its folder. It is read without torch.

    from ssd.config import COMPUTE, VendorKeys, key

    class Keys(VendorKeys):
        cache_mb: int = key(64, COMPUTE, "part of the card's cache that a run may use", "MiB", ge=1)

The key of a vendor `acme` is called `acme.cache_mb` everywhere: in config.json, in messages, and as the flag
`--acme.cache_mb`. In a TOML file it stands in the table `[acme]`. It is a field of the run's config like any other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from ssd.config.describe import describe_kind
from ssd.config.folders import vendor_folders
from ssd.config.keys import COMPUTE, PACE, PLACE, Keys, Role
from ssd.config.python_file import run_file
from ssd.config.roles import keys_of_role
from ssd.config.rules import Config
from ssd.errors import ConfigError

__all__ = ["KEYS_FILE", "VendorKeys", "config_in", "config_of", "keys_of_roles", "own_keys", "whose"]

KEYS_FILE = "keys.py"
ROLES = (PLACE, PACE, COMPUTE)
"""Roles that a vendor's key may have. What the run is (RULE) is the same for all vendors."""
NAME = re.compile("[a-z][a-z0-9_]*")

Own = TypeVar("Own", bound="VendorKeys")


class VendorKeys(BaseModel):
    """The keys of one vendor. A subclass named `Keys` in keys.py declares each as `ssd.config.key` says."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def of(cls: type[Own], config: Config | None) -> Own:
        """The values of a run. None, and a config that was made without the vendor's keys: the defaults."""
        dotted = {name: f"{config.name}.{name}" for name in cls.model_fields} if config else {}
        return cls.model_validate({name: getattr(config, key) for name, key in dotted.items() if hasattr(config, key)})


def config_of(name: str, environ: Mapping[str, str] = os.environ) -> type[Config]:
    """Config with the keys of the vendor `name`. It is Config itself where the vendor has none, or is not found here.

    Raises ConfigError where its keys.py is at fault, and MachineError where that imports what this machine lacks.
    """
    folder = vendor_folders(environ).get(name)
    return config_in(folder) if folder else Config


def config_in(folder: Path) -> type[Config]:
    """`config_of` for a vendor's folder."""
    path = folder / KEYS_FILE
    return _extended(path, path.read_bytes()) if path.is_file() else Config


def own_keys(kind: type[Config]) -> dict[str, FieldInfo]:
    """The keys of a kind of config that its vendor has declared, by their dotted names."""
    return {name: field for name, field in kind.model_fields.items() if name not in Config.model_fields}


def keys_of_roles(config: Mapping[str, Any], *roles: Role) -> frozenset[str]:
    """The keys that have one of these roles in the config of a run, as config.json keeps it.

    Where the folder of the run's vendor is not found here, its keys have no role: none of them is left out as a place.
    """
    kind = config_of(str(config.get("name"))) if any("." in key for key in config) else Config
    return frozenset(keys_of_role(kind, *roles))


def whose(word: str, vendor: str, environ: Mapping[str, str] = os.environ) -> str:
    """A sentence where an unknown key has the form of another vendor's than the run's, else ""."""
    name, dot, _ = word.lstrip("-").partition(".")
    if not dot or name == vendor or name not in vendor_folders(environ):
        return ""
    return f" Keys of vendor {name} go with --name {name}, and the run's vendor is {vendor}."


@cache
def _extended(path: Path, content: bytes) -> type[Config]:
    """Config with the keys of a keys.py. content: what the file holds, so that a changed file is read anew."""
    vendor = path.parent.name
    if not NAME.fullmatch(vendor) or vendor in {*Keys.model_fields, "extends"}:
        raise ConfigError(
            f"{path}: a vendor called {vendor!r} can have no keys: rename its folder to lower-case letters, digits and "
            "_, and to no key's name."
        )
    declared = getattr(run_file(f"ssd_vendor_{vendor}.keys", path), "Keys", None)
    if not (isinstance(declared, type) and issubclass(declared, VendorKeys)):
        raise ConfigError(f"{path}: defines no class Keys that inherits from ssd.config.VendorKeys.")
    for name, field in declared.model_fields.items():
        if fault := _fault(name, field):
            raise ConfigError(f"{path}: {name}: {fault}.")
    fields: dict[str, Any] = {f"{vendor}.{name}": (one.annotation, one) for name, one in declared.model_fields.items()}
    kind = create_model("Config", __base__=Config, **fields)
    try:
        kind()
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"{path}: a default is not allowed by its own bounds: {said}.") from error
    return kind


def _fault(name: str, field: FieldInfo) -> str:
    """What is wrong with a key's declaration, or ""."""
    extra = field.json_schema_extra
    if not NAME.fullmatch(name):
        return "take lower-case letters, digits and _ for a name"
    if not (isinstance(extra, dict) and {"role", "unit", "env"} <= extra.keys()):
        return "declare it by ssd.config.key"
    if extra["role"] not in ROLES or "closed" in extra:
        return f"its role is one of {', '.join(ROLES)}, because a vendor decides how a run is computed, not what it is"
    try:
        describe_kind(field.annotation)
    except KeyError:
        return "its type is none that a flag can have: int, float, bool, str, Path, a Literal of texts, or a tuple"
    return ""
