"""The layout of a package: which file lies where. Also a copy of a package that holds only regular files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ssd.mlperf.limits import RESULTS
from ssd.mlperf.logs import Finding

__all__ = ["implementation", "layout_findings", "regular_files", "text_of"]

_BYPASSES = ("rcp-bypass", "seed-checker-bypass")


def implementation(folder: Path, system: str) -> Path:
    """The folder of a package that holds the code of a system's runs, or says where it is."""
    return folder / "benchmarks" / "ssd" / "implementations" / system


def text_of(path: Path) -> str:
    """A file's text; bytes that are no UTF-8 are shown as such."""
    return path.read_text(encoding="utf-8", errors="backslashreplace")


def regular_files(folder: Path, copy: Path) -> list[Finding]:
    """Copy the regular files of a package, so that the checkers meet no pipe and no loop. Other files are findings.

    A link to a file inside the package is followed. A link to a folder is not followed. A link that leads out of the
    package is a finding.
    """
    found, inside = [], folder.resolve()
    for parent, folders, files in os.walk(folder):
        place = copy / Path(parent).relative_to(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in sorted(folders):
            path = Path(parent, name)
            if path.is_symlink():
                found.append(Finding(str(path.relative_to(folder)), "files", "is a link to a folder: it is not read"))
            elif re.fullmatch(r"result_\d+\.txt", name):
                found.append(Finding(str(path.relative_to(folder)), "files", "is a folder, not a result log"))
                folders.remove(name)
        for name in sorted(files):
            path, where = Path(parent, name), str(Path(parent, name).relative_to(folder))
            try:
                if not path.is_file():
                    found.append(Finding(where, "files", "is no regular file, or a link to nothing"))
                    continue
                if path.is_symlink() and not path.resolve().is_relative_to(inside):
                    found.append(Finding(where, "files", "is a link that leads out of the package", note=True))
                shutil.copyfile(path, place / name)
            except (OSError, RuntimeError) as error:
                found.append(Finding(where, "files", f"cannot be read: {error}"))
    return found


def layout_findings(folder: Path, systems: list[str]) -> Iterator[Finding]:
    """Files that a package lacks, and files that do not belong there. Any numbering of the five results is accepted."""
    rule = "layout"
    if not systems:
        yield Finding("results", rule, "holds no system: results/NAME/ssd/result_0.txt ... are expected")
    described = sorted(path.stem for path in (folder / "systems").glob("*.json"))
    for system in sorted(set(systems) - set(described)):
        text = f"is missing: the description's name is the results folder's ({', '.join(described) or 'there is none'})"
        yield Finding(f"systems/{system}.json", rule, text)
    for system in sorted(set(described) - set(systems)):
        yield Finding(f"systems/{system}.json", rule, f"describes a system without results/{system}")
    for system in systems:
        readme = implementation(folder, system) / "README.md"
        if not readme.is_file() or not text_of(readme).strip():
            text = "is missing or empty: it says how to reproduce the results"
            yield Finding(str(readme.relative_to(folder)), rule, text, note=True)
        yield from _results_layout(folder, system)


def _results_layout(folder: Path, system: str) -> Iterator[Finding]:
    rule, where = "layout", f"results/{system}/ssd"
    present = {path.name for path in (folder / where).glob("*")}
    results = sorted(name for name in present if re.fullmatch(r"result_\d+\.txt", name))
    if len(results) != RESULTS:
        wanted = {f"result_{index}.txt" for index in range(RESULTS)}
        for name in sorted(wanted - set(results)):
            yield Finding(f"{where}/{name}", rule, f"is missing: a score is made of exactly {RESULTS} results")
        for name in sorted(set(results) - wanted):
            text = f"does not belong here: a score is made of exactly {RESULTS} results"
            yield Finding(f"{where}/{name}", rule, text)
    elif results != [f"result_{index}.txt" for index in range(RESULTS)]:
        text = f"results are numbered {results[0]} to {results[-1]}, and not from 0"
        yield Finding(where, rule, text, note=True)
    for name in sorted(present - set(results) - {"power", "package_checker_params"}):
        yield Finding(f"{where}/{name}", rule, "does not belong here: only result_0.txt to result_4.txt do")
    for params in (f"results/{system}/package_checker_params", f"{where}/package_checker_params"):
        if not (folder / params).is_file():
            continue
        for line in text_of(folder / params).splitlines(keepends=True):
            if line in _BYPASSES:
                yield Finding(params, "bypass", f"{line}: a review committee will look at these results", note=True)
            elif line.strip() in _BYPASSES:
                text = f"{line.strip()} has no effect: the official checker wants no line break behind it"
                yield Finding(params, "bypass", text)
