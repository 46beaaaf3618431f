"""A vendor's folder, loaded by path and never importable by name: wheels may install a package called like one.

`load_vendor` runs its vendor.py as module `ssd_vendor_<name>`, so that relative imports work inside it and nothing else
changes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from ssd.config.folders import vendor_folder
from ssd.config.python_file import run_file
from ssd.errors import ConfigError, SsdError
from ssd.vendor.interface import Vendor

__all__ = ["load_vendor"]


def load_vendor(name: str, environ: Mapping[str, str] = os.environ) -> Vendor:
    """Load a vendor by name. Unknown: ConfigError that lists the vendors found.

    A vendor.py that does not run, or has no class Vendor, is a ConfigError naming file and line; one that needs a
    library this machine lacks is a MachineError.
    """
    folder = vendor_folder(name, environ)
    module = _load_module(name, folder)
    kind = getattr(module, "Vendor", None)
    if not (isinstance(kind, type) and issubclass(kind, Vendor) and kind.__module__ == module.__name__):
        raise ConfigError(f"{folder / 'vendor.py'}: defines no class Vendor that inherits from ssd.vendor.Vendor.")
    return kind(name, folder)


def _load_module(name: str, folder: Path) -> ModuleType:
    """Run vendor.py by path as `ssd_vendor_<name>`, once a process and folder."""
    module_name = "ssd_vendor_" + re.sub(r"\W", "_", name)
    path = folder / "vendor.py"
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    _forget(module_name)
    try:
        return run_file(module_name, path, package=folder)
    except SsdError:
        _forget(module_name)
        raise


def _forget(module_name: str) -> None:
    """Take a vendor's module and what it imported from its own folder out of sys.modules."""
    for loaded in list(sys.modules):
        if loaded == module_name or loaded.startswith(module_name + "."):
            del sys.modules[loaded]
