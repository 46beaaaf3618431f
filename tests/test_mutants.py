"""The sampler of mutants: each module has a file that tests it, and a mutant is another program."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def mutants(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tests/mutants.py, which finds mutations.py beside it."""
    monkeypatch.syspath_prepend(root / "tests")
    return importlib.import_module("mutants")


def changed(mutants: ModuleType, source: str) -> dict[str, str]:
    """What is said of each mutant of a source, without its line -> the mutant."""
    found = [mutants.mutant(source, number) for number, _ in enumerate(mutants.mutations(ast.parse(source)))]
    return {said.partition(": ")[2]: text for said, text in found}


def test_every_module_has_a_file_that_tests_it(mutants: ModuleType) -> None:
    modules = [path for path in mutants.modules() if list(mutants.mutations(ast.parse(path.read_text())))]
    assert len(modules) > 150
    assert [str(path) for path in modules if not mutants.mirror(path).is_file()] == []
    assert all(mutants.mirror(path).name.startswith("test_") for path in modules)


def test_the_table_lists_modules_and_rooms_that_are_there(mutants: ModuleType) -> None:
    for name in mutants.ELSEWHERE:
        assert (mutants.PACKAGE / name).is_dir() or (mutants.PACKAGE / f"{name}.py").is_file(), name
    assert all((mutants.PACKAGE / name).is_file() for name in mutants.LEFT_ALONE)


def test_the_mutants_of_a_function(mutants: ModuleType) -> None:
    source = (
        "def f(a: int=1, b=True) -> int:\n    if a < 9 and (not DEBUG):\n        raise ValueError\n    return a + 0"
    )
    changes = {
        "True: becomes False": ("True", "False"),
        "a < 9: Lt becomes LtE": ("<", "<="),
        "a < 9 and (not DEBUG): And becomes Or": ("and (not DEBUG)", "or not DEBUG"),
        "a < 9 and (not DEBUG): becomes its opposite": ("a < 9 and (not DEBUG)", "not (a < 9 and (not DEBUG))"),
        "raise ValueError: is left out": ("raise ValueError", "pass"),
        "return a + 0: is left out": ("return a + 0", "pass"),
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
    b.mkdir
    time.sleep(1)
    torch.cuda.synchronize()
    end = time.monotonic() > until
    'Text.'
    c, d = e, 'text' % 1
    if TYPE_CHECKING:
        import f
    def g(self):
        return None
"""
    assert changed(mutants, source) == {}


def test_a_statement_is_left_out_where_the_rest_can_run_without_it(mutants: ModuleType) -> None:
    source = "def f(a):\n    a.b = 5\n    c = g()\n    a += c\n    g()\n    return a"
    left_out = {said.removesuffix(": is left out"): text for said, text in changed(mutants, source).items()}
    assert set(left_out) == {"a.b = 5", "a += c: Add becomes Sub", "a += c", "g()", "return a"}
    assert left_out["g()"] == source.replace("    g()", "    pass")


def test_limits_grow_with_the_load_of_the_machine(mutants: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    for load, times in ((0.3, 1.0), (2.0, 1.0), (7.0, 3.5)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert mutants.slowed() == times


DRIVER = """
import json, sys
from pathlib import Path
import mutants

mutants.ROOT = mutants.PACKAGE = Path("whole").resolve()
mutants.mirror = lambda module: module.with_name(f"test_{module.name}")
mutants.TEST_LIMIT, mutants.slowed = 2, lambda: 1.0
asked = [("good", "A = 2"), ("good", "A = 1"), ("good", "A ="), ("hangs", "A = 2"), ("bad", "A = 2"), ("none", "A = 2")]
found = [mutants.verdict(mutants.ROOT / f"{name}.py", text, Path("scratch").resolve()) for name, text in asked]
print(json.dumps(found))
"""
BODIES = {
    "good": "    assert A == 1",
    "hangs": "    while A == 2: time.sleep(0.1)",
    "bad": "    assert A == 3",
    "none": "    pass\nfrom nowhere import B",
}


@pytest.mark.slow
def test_a_file_passes_or_fails_or_hangs(root: Path, tmp_path: Path) -> None:
    """One after the other in one copy. A mutant's bytecode is not left to the module after it.

    What fails without the mutant too is not to its credit: a test of `bad`, and the import of the file of `none`.
    """
    (tmp_path / "whole").mkdir()
    (tmp_path / "scratch").mkdir()
    for name, body in BODIES.items():
        (tmp_path / "whole" / f"{name}.py").write_text("A = 1")
        test = f"import sys, time\nsys.path.insert(0, '.')\nfrom {name} import A\ndef test_a():\n{body}\n"
        (tmp_path / "whole" / f"test_{name}.py").write_text(test)
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout"}
    environ = {**os.environ, **plugins, "PYTHONPATH": str(root / "tests")}
    command = [sys.executable, "-c", DRIVER]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    expected = ["killed", "SURVIVES", "killed", "killed", "FAILS WITHOUT IT", "FAILS WITHOUT IT"]
    assert json.loads(done.stdout) == expected
    (copy,) = (tmp_path / "scratch").iterdir()
    assert (copy / "good.py").read_text() == "A = 1", "the copy is whole again"
