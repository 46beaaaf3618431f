"""The sampler of mutants: each module has a file that tests it, and a mutant is another program."""

from __future__ import annotations

import ast
import importlib.util
import math
import shutil
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def mutants(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", root / "tests" / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(mutants: ModuleType, source: str) -> dict[str, str]:
    """What is shown of each mutant of a source -> the mutant."""
    found = {}
    for number in range(len(list(mutants.mutations(ast.parse(source))))):
        tree = ast.parse(source)
        shown, words, node, field, value = list(mutants.mutations(tree))[number]
        said = f"{ast.unparse(shown)}: {words}"
        setattr(node, field, value)
        found[said] = ast.unparse(ast.fix_missing_locations(tree))
    return found


def test_every_module_has_a_file_that_tests_it(mutants: ModuleType) -> None:
    modules = [path for path in mutants.PACKAGE.rglob("*.py") if list(mutants.mutations(ast.parse(path.read_text())))]
    assert [str(path) for path in modules if not mutants.mirror(path).is_file()] == []
    assert all(mutants.mirror(path).name.startswith("test_") for path in modules)


def test_the_table_lists_modules_and_rooms_that_are_there(mutants: ModuleType) -> None:
    for name in mutants.ELSEWHERE:
        assert (mutants.PACKAGE / name).is_dir() or (mutants.PACKAGE / f"{name}.py").is_file(), name


def test_the_mutants_of_a_function(mutants: ModuleType) -> None:
    source = "def f(a: int=1) -> int:\n    if a < 9 and (not DEBUG):\n        raise ValueError\n    return a + 0"
    changes = {
        "1: becomes 2": ("=1", "=2"),
        "0: becomes 1": ("0", "1"),
        "a < 9: Lt becomes LtE": ("<", "<="),
        "a < 9 and (not DEBUG): And becomes Or": ("and (not DEBUG)", "or not DEBUG"),
        "a < 9 and (not DEBUG): becomes its opposite": ("a < 9 and (not DEBUG)", "not (a < 9 and (not DEBUG))"),
        "raise ValueError: is left out": ("raise ValueError", "pass"),
        "a + 0: Add becomes Sub": ("+", "-"),
    }
    assert changed(mutants, source) == {said: source.replace(old, new) for said, (old, new) in changes.items()}


def test_what_no_test_of_values_should_hold_is_left_alone(mutants: ModuleType) -> None:
    source = """
@dataclass(frozen=True)
class A:
    x: Literal[1, 2]
    log.info('a %d', 1)
    y = zip(a, strict=True)
    'Text.'
"""
    assert changed(mutants, source) == {}


@pytest.mark.slow
def test_a_file_passes_or_fails_or_hangs(mutants: ModuleType, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    for name, body in (("good", "pass"), ("bad", "assert 0"), ("hangs", "import time; time.sleep(60)")):
        (tmp_path / f"test_{name}.py").write_text(f"def test_a():\n    {body}\n")
    shutil.copytree(tmp_path, tmp_path / "copy")
    folders = SimpleQueue()
    folders.put(tmp_path / "copy")
    found = {name: mutants.seconds_to_pass(folders, tmp_path / f"test_{name}.py", 8.0) for name in ("bad", "hangs")}
    assert found == {"bad": math.inf, "hangs": math.inf}
    good = tmp_path / "test_good.py"
    assert mutants.seconds_to_pass(folders, good, 60.0) < 60
    assert mutants.seconds_to_pass(folders, good, 60.0, good, "def test_a():\n    assert 0\n") == math.inf
    assert (tmp_path / "copy" / good.name).read_text() == good.read_text(), "the copy is whole again"
