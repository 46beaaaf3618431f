"""The pages: every test and file they name exists, what they import can be, and the README links every page."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssd.errors import EXIT_KILLED, EXIT_MEANING

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    missing = [
        f"{file}::{name}"
        for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", page.read_text(encoding="utf-8"))
        if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [page.parent / target for target in re.findall(r"\]\(([\w./-]+?)\)", text)]
    files = [
        ROOT / name for name in re.findall(r"`((?:base|tests|docs|bench|nvidia|iluvatar|cpu)/[\w./-]+\.\w+)`", text)
    ]
    assert [str(path) for path in links + files if not path.exists()] == []


def test_each_kind_of_change_names_its_file_and_the_test_to_copy() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE) if row[0][0] not in "y*-"]
    assert len(rows) >= 30
    for change, place, test in rows:
        named = re.findall(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:txt|md))`", place)
        assert [name for name in named if not (ROOT / name).exists()] == [], change
        assert named or "vendors new" in place, change
        assert re.search(r"`tests/[\w/]+\.py`", test), change


def public_functions(module: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__call__"):
            yield node


def test_a_public_function_with_tensors_names_their_shapes_and_dtypes() -> None:
    """Shapes such as (B, 4, D), () or "any shape"; dtypes such as float32, int64, bool or "any dtype"."""
    silent = []
    for path in sorted((ROOT / "base" / "ssd").rglob("*.py")):
        for function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
            arguments = [*function.args.args, *function.args.kwonlyargs]
            types = " ".join(ast.unparse(one) for one in [*(a.annotation for a in arguments), function.returns] if one)
            said = ast.get_docstring(function) or ""
            shape = re.search(r"\([\w.* +/-]*,[\w.*, +/-]*\)|\(\)|any shape", said)
            dtype = re.search(r"float|int8|int32|int64|bool|dtype", said)
            if re.search(r"\b(Tensor|NDArray|ndarray)\b", types) and not (shape and dtype):
                silent.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert silent == []


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = [ROOT / target for target in re.findall(r"\]\(([\w./-]+?)\)", readme)]
    assert [page.name for page in PAGES if page.name != "README.md" and page not in linked] == []


IMPORTS = sorted(
    {
        line
        for page in PAGES
        for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for line in re.findall(r"^(?:import|from) [^.\n]\S*.*$", block, re.MULTILINE)
    }
)
"""What a reader's own files import by the pages' examples; `from .loss import loss` is a file of the example itself."""


@pytest.mark.parametrize("line", IMPORTS)
def test_what_a_page_imports_is_there(line: str) -> None:
    exec(line, {})


@pytest.mark.parametrize("name", ["vendor.Vendor", "vendor.Override", "vendor.Check", "ops", "errors", "boxes"])
def test_what_vendors_elsewhere_import_stays(name: str) -> None:
    """Vendors' folders live in repositories of their own; docs/porting.md promises these names."""
    module, _, member = name.partition(".")
    found = importlib.import_module(f"ssd.{module}")
    assert not member or hasattr(found, member)


def test_the_architecture_is_drawn_from_todays_imports() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = runpy.run_path(str(ROOT / "docs" / "architecture.py"))["drawn"]
    assert drawn(page) == page, "run `make architecture` (python docs/architecture.py) and commit docs/architecture.md"


def exit_codes(page: Path) -> list[str]:
    """The codes of a page's table of exit codes."""
    return re.findall(r"^\| (\d+|128 \+ n) \| [a-z]", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_exit_codes_stand_in_one_place_and_are_the_codes_own() -> None:
    codes = ["128 + n" if code == EXIT_KILLED else str(code) for code in EXIT_MEANING]
    assert exit_codes(ROOT / "README.md") == codes
    assert [page.name for page in PAGES if page.name != "README.md" and exit_codes(page)] == []


def test_the_hooks_of_a_commit_call_the_tools_of_make_lint() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe
    tools = re.findall(r"\$\(BIN\)/(\w+(?: format --check| check| -x)?)", recipe[1])
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8").replace('"', "")
    assert {tool.split()[0] for tool in tools} == {"ruff", "mypy", "shellcheck", "hadolint"}
    assert [tool for tool in tools if f"bin/{tool}" not in hooks] == []
