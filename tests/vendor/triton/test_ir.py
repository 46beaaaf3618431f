"""The means "ir, races checked": when it is offered, what it says, and the page that `make test-races` left.

ttsem is in no environment of the other tests, so its own findings are looked at in the page; a stand-in plays it here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ssd.conformance.cases import small_case
from ssd.conformance.compare import Mismatch
from ssd.conformance.memory import Memory
from ssd.conformance.run import REPEATED, Plan, run_here
from ssd.conformance.trial import unguarded
from ssd.errors import MachineError
from ssd.ops import OP_NAMES, REFERENCE
from ssd.vendor import Override, load_vendor
from ssd.vendor.overrides import RACES_CHECKED
from ssd.vendor.triton import ir, overrides
from ssd.vendor.triton.overrides import COMPILED_ONLY, EMULATOR, HARDWARE, triton_overrides

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def races(root: Path) -> ModuleType:
    """tests/races.py."""
    spec = importlib.util.spec_from_file_location("races", root / "tests" / "races.py")
    module = sys.modules["races"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("installed", [True, False])
def test_the_means_is_offered_where_ttsem_is_installed(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    known = {"triton": True, "ttsem": installed}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: known.get(name) or None)
    between = [RACES_CHECKED] if installed else []
    for targets, after in ((("sm_90",), [COMPILED_ONLY]), ((), [])):
        for override in triton_overrides("triton", targets, lambda: False):
            assert list(override.means()) == [EMULATOR, *between, *after]


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[bool]]:
    """Says how the kernels of this process are: interpreted or compiled. All that imports Triton is played here."""
    launches: list[bool] = []
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    monkeypatch.setitem(sys.modules, "ssd.vendor.triton.build", SimpleNamespace(build=lambda op, names: [op, *names]))
    monkeypatch.setattr(overrides, "_ops", lambda: REFERENCE)
    monkeypatch.setattr(ir, "check_every_launch", lambda: launches.append(True))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def say(state: bool) -> list[bool]:
        monkeypatch.setitem(sys.modules, "ssd.vendor.triton.launch", SimpleNamespace(INTERPRETED=state))
        return launches

    return say


def test_each_means_loads_what_it_needs(interpreted: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = next(one for one in triton_overrides("triton", ("sm_90", "sm_80"), lambda: True) if one.op == "loss")
    checked = interpreted(False)
    assert loss.load(HARDWARE) is REFERENCE.loss
    assert loss.load(COMPILED_ONLY)() == ["loss", "sm_90", "sm_80"]
    assert not checked
    assert loss.load(RACES_CHECKED) is REFERENCE.loss
    assert checked
    with pytest.raises(
        MachineError, match=r"with kernels compiled, which excludes 'emulator' in this process\. Remedy"
    ):
        loss.load(EMULATOR)
    interpreted(True)
    assert loss.load(EMULATOR) is REFERENCE.loss
    with pytest.raises(MachineError, match=r"interpreted \(TRITON_INTERPRET=1\), which excludes 'hardware' in this"):
        loss.load(HARDWARE)
    assert "TRITON_INTERPRET" not in os.environ, "too late for it: Triton was imported before"
    monkeypatch.delitem(sys.modules, "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    loss.load(EMULATOR)
    assert os.environ["TRITON_INTERPRET"] == "1"


def test_hardware_is_the_first_means_where_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "triton" or None)
    assert {one.means()[0] for one in triton_overrides("triton", (), lambda: True)} == {HARDWARE}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert {one.means() for one in triton_overrides("triton", ("sm_90",), lambda: True)} == {()}


@pytest.fixture
def ttsem(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for ttsem, which keeps the arguments of its session."""
    kept = SimpleNamespace(memory=SimpleNamespace(ACCESS_BUDGET=1), arguments=None, open=False)

    @contextmanager
    def session(**arguments):
        kept.arguments, kept.open = arguments, True
        yield
        kept.open = False

    kept.sanitize = SimpleNamespace(session=session)
    monkeypatch.setitem(sys.modules, "ttsem", kept)
    ir.check_every_launch()
    yield kept
    ir._rest_of_process.close()


def fault(kind: str, **entries) -> SimpleNamespace:
    plain = {"kernel": "_mine", "source_file": "/a/loss.py", "source_line": 81, "detail": "programs (0) and (1) store"}
    plain |= {"elements_past_end": 0, "elements_before_start": 0, "buffer": "costs"}
    return SimpleNamespace(kind=kind, **plain | entries)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (fault("race"), "kernel _mine, loss.py line 81, a race: programs (0) and (1) store"),
        (fault("oob_read", elements_past_end=3),
         "kernel _mine, loss.py line 81, a load outside of every tensor: 3 elements past the end of costs"),
        (fault("oob_write", elements_before_start=2, source_line=0),
         "kernel _mine, line unknown, a store outside of every tensor: 2 elements before the start of costs"),
        (fault("poison", detail="division by 0"), "kernel _mine, loss.py line 81, an undefined result: division by 0"),
    ],
)  # fmt: skip
def test_what_is_found_names_kernel_line_and_tensor(ttsem: SimpleNamespace, found: SimpleNamespace, said: str) -> None:
    with pytest.raises(ir.AccessError) as caught:
        ttsem.arguments["on_stop"](SimpleNamespace(fault=found))
    assert str(caught.value) == said


def test_what_could_not_be_judged_or_checked_is_an_error_too(ttsem: SimpleNamespace) -> None:
    assert ttsem.open
    assert ttsem.memory.ACCESS_BUDGET == ir.ACCESSES == 2**24
    assert ttsem.arguments["cuda_is_cpu"] is False
    with pytest.raises(ir.AccessError, match="not judged: no such op"):
        ttsem.arguments["on_stop"](SimpleNamespace(detail="no such op"))
    with pytest.raises(ir.AccessError, match="16,777,216 accesses was not checked for races"):
        ttsem.arguments["on_unchecked"]()


def test_memory_without_guards_is_the_tensors_own_storage() -> None:
    memory = Memory(0x55, guard=0, floats=0xFF)
    with memory:
        assert torch.empty(3, 5).untyped_storage().nbytes() == 60
        assert torch.empty(7).isnan().all()
        assert torch.empty(2, dtype=torch.int32).tolist() == [0x55555555] * 2
        assert memory.place(torch.ones(2)).untyped_storage().nbytes() == 8
    memory.require_intact()


def test_a_read_of_memory_that_nobody_wrote_is_seen_without_guards() -> None:
    def forgets_one(boxes, labels, defaults, **options):
        offsets, found = REFERENCE.encode(boxes, labels, defaults, **options)
        written = torch.empty_like(found)
        written[:, 1:] = found[:, 1:]
        return offsets, written

    assert not unguarded(small_case("encode"), forgets_one, CPU).ok
    with pytest.raises(Mismatch, match="labels is"):
        unguarded(small_case("encode"), lambda *a, **k: (REFERENCE.encode(*a, **k)[0], torch.zeros(1)), CPU)
    assert unguarded(small_case("encode"), REFERENCE.encode, CPU).ok


def test_by_this_means_storages_are_those_of_tensors_and_nothing_is_repeated() -> None:
    storages = set()

    def sizes(boxes, labels, defaults, **options):
        storages.update(tensor.untyped_storage().nbytes() - 4 * tensor.numel() for tensor in (boxes, defaults.xywh))
        return REFERENCE.encode(boxes, labels, defaults, **options)

    override = Override("encode", "triton", "here", lambda means: sizes, lambda: [RACES_CHECKED])
    vendor = load_vendor("cpu")
    assert run_here(vendor, override, RACES_CHECKED, Plan(case=REPEATED)) == []
    [row] = run_here(vendor, override, RACES_CHECKED, Plan(case="1 box"))
    assert row.ok
    assert storages == {0}


def test_every_op_has_a_mutant_of_every_kind_and_each_is_still_a_change(races: ModuleType, tmp_path: Path) -> None:
    kinds = {(mutant.op, mutant.kind) for mutant in races.MUTANTS}
    assert kinds == {(op, kind) for op in OP_NAMES for kind in (races.RACE, races.OUTSIDE, races.UNWRITTEN)}
    for number, mutant in enumerate(races.MUTANTS):
        races.mutate(mutant, tmp_path / str(number))
        before, after = (folder / f"{mutant.op}.py" for folder in (races.KERNELS, tmp_path / str(number)))
        assert after.read_text() == before.read_text().replace(mutant.before, mutant.after) != before.read_text()
    with pytest.raises(ValueError, match=r"encode\.py holds 'no such text' 0 times, not once"):
        races.mutate(races.Mutant("encode", races.RACE, "no such text", "", ""), tmp_path / "none")


def test_the_kept_page_has_no_finding_in_ours_and_one_in_each_mutant(races: ModuleType) -> None:
    page = races.PAGE.read_text()
    assert re.search(r"ttsem [\d.]+, triton [\d.]+, torch [\d.]+, Python 3\.\d+\.\d+, seed \d+\.", page)
    counts = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert [op for op, _, _ in counts] == list(OP_NAMES)
    for _, tried, clean in counts:
        assert tried == clean
        assert int(clean) > 10
    lines = page.splitlines()
    for mutant in races.MUTANTS:
        [line] = [line for line in lines if races.inline(mutant.after) in line and line.startswith(f"| {mutant.op} ")]
        assert mutant.said in line
