"""Runs a Python file of a vendor's folder by its path; what goes wrong in it is a message with file and line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from ssd.errors import ConfigError, MachineError, SsdError
from ssd.text import said_by

__all__ = ["run_file"]


class _Source(SourceFileLoader):
    """Keeps no bytecode: nothing is written to a vendor's folder, and a file that has just changed is read anew."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def run_file(module_name: str, path: Path, *, package: Path | None = None) -> ModuleType:
    """The module of the file, which is run anew. package: the folder that its relative imports are looked for in.

    Raises ConfigError where the file does not run, and MachineError where it imports what this machine lacks.
    """
    places = None if package is None else [str(package)]
    spec = importlib.util.spec_from_file_location(
        module_name, path, loader=_Source(module_name, str(path)), submodule_search_locations=places
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a vendor's file does while it is run: _error puts it into words
        del sys.modules[module_name]
        raise _error(path, error) from error
    return module


def _error(path: Path, error: Exception) -> SsdError:
    """What went wrong in a file, as a message with the line of the file that raised it."""
    if isinstance(error, SsdError):
        return error
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    message = f"{path}, line {line}: {said_by(error)}."
    if isinstance(error, ImportError | OSError):  # a missing module, or a shared library that cannot be loaded
        return MachineError(f"{message} Install what it imports, or choose another vendor.")
    return ConfigError(f"{message} Correct the file.")
