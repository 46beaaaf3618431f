"""Draws the picture of docs/architecture.md from the imports of base/ssd: `make architecture`, or

    python docs/architecture.py

An arrow says "imports". An arrow that others imply is left out: where A imports B and B imports C, none goes from A to
C. The files at the bottom, which every room may read, are one box without arrows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "base" / "ssd"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "```mermaid\n", "```\n"
ENTRANCES = ("cli", "train")
"""Files beside the rooms that are none of those at the bottom."""


def module_of(path: Path) -> str:
    """`base/ssd/data/crop.py` -> `ssd.data.crop`; a room's face has the room's name."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def file_imports(module: str, type_checking: bool = True) -> set[str]:
    """Modules of ours that a module imports; with `type_checking` also those that it imports for their types alone."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    found = {known for node in _nodes(tree, type_checking) for name in _names(node) if (known := _known(name))}
    return found - {module}


def _nodes(tree: ast.AST, type_checking: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if type_checking or not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from _nodes(node, type_checking)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _known(name: str) -> str:
    """The module that an imported name stands in; empty for a library's."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return "" if name == "ssd" else name


def room_of(module: str) -> str:
    """`ssd.data.crop` -> `data`."""
    return module.split(".")[1] if "." in module else module


def rooms() -> dict[str, set[str]]:
    """Each room and entrance, and the rooms that it imports while it runs."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if path.parent == PACKAGE and path.stem not in ENTRANCES:
            continue
        used = {room_of(other) for other in file_imports(module, type_checking=False)}
        found.setdefault(room_of(module), set()).update(used)
    return {name: {other for other in used if other in found and other != name} for name, used in found.items()}


def arrows() -> list[tuple[str, str]]:
    """The imports between rooms, from the top down, without those that others imply."""
    used = rooms()
    reached: dict[str, set[str]] = {}
    order = list(TopologicalSorter(used).static_order())  # from the bottom up
    for name in order:
        reached[name] = used[name].union(*(reached[other] for other in used[name]))
    return [
        (name, other)
        for name in reversed(order)
        for other in sorted(used[name])
        if not any(other in reached[between] for between in used[name] - {other})
    ]


def picture() -> str:
    """The picture as Mermaid takes it."""
    folders = {name for name in rooms() if name not in ENTRANCES}
    leaves = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in (*ENTRANCES, "__init__", "__main__"))
    lines = ["flowchart TD"]
    lines += [f'    {name}["{name}/"]' if name in folders else f'    {name}(["{name}.py"])' for name in sorted(rooms())]
    lines += [f"    {name} --> {other}" for name, other in arrows()]
    lines.append(f'    bottom["read by every room: {", ".join(leaves)}"]')
    return "\n".join(lines) + "\n"


def drawn(page: str) -> str:
    """The page with the picture of today's imports in place of the one it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{picture()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
