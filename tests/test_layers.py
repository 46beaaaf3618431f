"""The rooms and who may enter, held by reading syntax trees: imports point down, and base knows no vendor by name."""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ssd.config import Config

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "base" / "ssd"
VENDORS = ("amd", "cpu", "iluvatar", "nvidia")
SOURCES = sorted(PACKAGE.rglob("*.py"))

LEAVES: dict[str, set[str]] = {
    "errors": set(),
    "text": set(),
    "terminal": set(),
    "counts": set(),
    "boxes": {"counts"},
    "locks": {"errors", "text"},
    "trust": set(),
    "files": set(),
    "signals": set(),
    "console": {"text"},
    "tensor_file": {"errors", "text"},
}
"""Files at the bottom, and what they import of each other. Every room may read them."""
FLOORS = {
    "account": {},
    "ops": {},
    "model": {},
    "data": {"ops"},
    "config": {},
    "mlperf": {"account", "config"},
    "report": {"account", "mlperf"},
    "launch": {"account", "config"},
    "compute": {"config", "data", "ops"},
    "vendor": {"config", "compute", "ops"},
    "conformance": {"config", "compute", "vendor", "data", "model", "ops", "report"},
    "run": {"account", "config", "compute", "vendor", "data", "model", "mlperf", "report", "ops"},
    "prepare": {"config", "vendor", "data"},
    "measure": {"account", "config", "compute", "vendor", "data", "model", "mlperf", "run"},
    "plan": {"account", "config", "compute", "vendor", "mlperf"},
    "verbs": {
        "account",
        "config",
        "compute",
        "vendor",
        "run",
        "prepare",
        "plan",
        "data",
        "model",
        "mlperf",
        "conformance",
    }
    | {"report", "ops", "measure"},
    "train": {"account", "config", "compute", "vendor", "run"},
    "cli": {"account", "config", "launch", "vendor", "conformance", "prepare", "plan", "verbs", "run", "train"}
    | {"mlperf"},
    "__main__": {"cli"},
    "__init__": {},
}
"""From the bottom up: a room, and the rooms that it may import from. No room imports one that stands below it here."""


def room(path: Path) -> str:
    """`base/ssd/data/crop.py` -> `data`; `base/ssd/train.py` -> `train`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    """Nodes under `if TYPE_CHECKING:`: a type from above may be named there."""
    guarded = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    return {inner for node in guarded for statement in node.body for inner in ast.walk(statement)}


def imported(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports at run time, relative imports resolved within its top folder as `.`-names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = type_checking_only(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_entered(path: Path) -> set[str]:
    """Rooms of ours that a file imports from, its own left out."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("ssd.")}
    return names - {room(path), "__version__"}


def in_package(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", SOURCES, ids=in_package)
def test_a_room_imports_only_what_its_floor_allows(path: Path) -> None:
    allowed = LEAVES[room(path)] if room(path) in LEAVES else {*LEAVES, *FLOORS[room(path)]}
    assert rooms_entered(path) <= allowed


def test_no_floor_allows_an_import_upwards() -> None:
    order = list(FLOORS)
    assert [(name, other) for name in order for other in FLOORS[name] if order.index(other) >= order.index(name)] == []


def test_no_circle_between_files() -> None:
    """Of files that import each other, none can be read first. Imports of types alone count as well."""
    files = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in SOURCES}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    left = {name: read_by(path, files) - {name} for name, path in files.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def read_by(path: Path, files: dict[str, Path]) -> set[str]:
    """Names of the package's files whose content `path` imports; faces are left out, which only pass names on."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found & files.keys() if files[name].name != "__init__.py"}


def test_every_room_says_what_it_is() -> None:
    """Its face names what others may use, and holds no logic."""
    for face in PACKAGE.rglob("__init__.py"):
        if face.parent == PACKAGE:
            continue
        tree = ast.parse(face.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), face
        logic = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        assert logic == [], face


@pytest.mark.parametrize("path", SOURCES, ids=in_package)
def test_base_imports_itself_by_absolute_names(path: Path) -> None:
    assert [name for name in imported(path) if name.startswith(".")] == []


def code_alone(path: Path) -> list[str]:
    """A file's statements, without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant("")
    return ast.unparse(tree).splitlines()


@pytest.mark.parametrize("path", SOURCES, ids=in_package)
def test_base_knows_no_vendor(path: Path) -> None:
    """`cpu` is a device type of torch's too, so it may stand; makers' names may not, but in two libraries'."""
    named = re.compile(r"iluvatar|corex|ixsmi|\bamd\b|amdsmi|rocm|nvidia(?!/apex|[ .-]dali)", re.IGNORECASE)
    assert [line for line in code_alone(path) if named.search(line)] == []


def vendor_sources() -> list[Path]:
    return [path for name in VENDORS for path in sorted((ROOT / name).rglob("*.py"))]


@pytest.mark.parametrize("path", vendor_sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_vendor_imports_neither_another_nor_the_train_loop(path: Path) -> None:
    for name in imported(path):
        parts = name.split(".")
        assert not any(part.startswith("ssd_vendor_") for part in parts), name
        assert parts[0] not in (*VENDORS, "base"), name
        assert parts[:2] not in (["ssd", "train"], ["ssd", "cli"], ["ssd", "launch"]), name


@pytest.mark.parametrize("name", VENDORS)
def test_a_vendors_folder_is_no_package(name: str) -> None:
    assert not (ROOT / name / "__init__.py").exists()


def test_the_repositorys_root_is_not_on_the_path() -> None:
    assert ROOT not in {Path(entry or ".").resolve() for entry in sys.path}


@pytest.mark.parametrize("name", VENDORS)
def test_a_vendors_name_finds_no_folder_of_ours(name: str) -> None:
    spec = importlib.util.find_spec(name)
    places = [] if spec is None else [*(spec.submodule_search_locations or []), spec.origin or ""]
    ours = [ROOT / folder for folder in VENDORS]
    assert [place for place in places if place and any(Path(place).resolve().is_relative_to(o) for o in ours)] == []


def test_every_key_of_the_config_is_read_somewhere() -> None:
    """A key that nothing reads would be accepted and do nothing."""
    read: set[str] = set()
    for path in [*SOURCES, *vendor_sources()]:
        if path.parent.name == "config" and path.name in ("keys.py", "rules.py", "resolved.py"):
            continue
        text = path.read_text(encoding="utf-8")
        read |= {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        if 'f"{op}_op"' in text:  # select_ops reads them by name
            read |= {"augment_op", "encode_op", "loss_op", "detect_op", "crop_op"}
    # `config` is how the named file is found, in config.py.
    assert set(Config.model_fields) - read - {"config"} == set()


def test_tests_hold_no_init_py() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


MOST_LINES = 300
MOST_LINES_OF_A_FUNCTION = 100


def test_no_two_files_import_each_other_for_types_either() -> None:
    architecture = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    imports = {module: architecture["file_imports"](module) for module in architecture["MODULES"]}
    assert {"ssd.config", "ssd.vendor"} <= imports["ssd.train"]
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", SOURCES, ids=in_package)
def test_a_file_and_its_functions_are_short_enough_to_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [one.name for one in functions if (one.end_lineno or 0) - one.lineno >= MOST_LINES_OF_A_FUNCTION] == []


def test_no_file_repeats_the_name_of_its_room() -> None:
    rooms = [path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    twice = [in_package(path) for path in SOURCES for folder in rooms if path.parent == folder]
    assert [name for name in twice if Path(name).stem.startswith(Path(name).parent.name)] == []
