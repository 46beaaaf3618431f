"""A vendor's folder, loaded by path and never importable by name: wheels may install a package called like one.

`load_vendor` runs its vendor.py as module `ssd_vendor_<name>`, so that relative imports work inside it and nothing else
changes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from ssd.config.folders import vendor_folder
from ssd.errors import ConfigError, MachineError, SsdError
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
    spec = importlib.util.spec_from_file_location(module_name, path, submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a vendor's file does while it is run: _loading_error puts it into words
        _forget(module_name)
        raise _loading_error(path, error) from error
    return module


def _forget(module_name: str) -> None:
    """Take a vendor's module and what it imported from its own folder out of sys.modules."""
    for loaded in list(sys.modules):
        if loaded == module_name or loaded.startswith(module_name + "."):
            del sys.modules[loaded]


def _loading_error(path: Path, error: Exception) -> SsdError:
    """What went wrong in a vendor.py, as a message with the line of the vendor's folder that raised it."""
    if isinstance(error, SsdError):
        return error
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    message = f"{path}, line {line}: {type(error).__name__}: {error}."
    if isinstance(error, ImportError | OSError):  # a missing module, or a shared library that cannot be loaded
        return MachineError(f"{message} Install what it imports, or choose another vendor.")
    return ConfigError(f"{message} Correct the file.")
