"""The conformance suite itself: that it goes red for every kind of wrong override, and says by what means it knows.

A vendor is made in a temporary folder whose overrides are the reference ops with one thing wrong; nothing here needs a
GPU, an emulator or a compiler.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssd.conformance import COMPILED_ONLY, HARDWARE, Row, check_command, run_conformance
from ssd.conformance.cases import cases_of, timed_case
from ssd.conformance.compare import ROUNDED, Mismatch, compare, outputs
from ssd.conformance.report import document, table
from ssd.conformance.run import Plan
from ssd.conformance.trial import trial
from ssd.console import SafeConsole
from ssd.errors import EXIT_INTERNAL, ConfigError
from ssd.ops import OP_NAMES, REFERENCE, Detections
from ssd.vendor import load_vendor

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")

VENDOR = """
import os
from functools import partial
import ssd.vendor
from ssd.errors import MachineError
from ssd.ops import REFERENCE
from ssd.vendor import Override

def good(op, means):
    return getattr(REFERENCE, op)

def wrong(op, means):
    return lambda *a, **k: getattr(REFERENCE, op)(*a, **k) * 1.001

def absent(op, means):
    raise MachineError("no such library; install it")

def built(op, means):
    return lambda: iter(["first kernel", "second kernel"])

def unbuilt(op, means):
    def build():
        yield "first kernel"
        raise ValueError("register spill")
    return build

def crash(op, means):
    os.write(2, b"out of bounds")
    os._exit(9)

KINDS = {
    "good": (good, ("emulator",)), "wrong": (wrong, ("emulator",)), "absent": (absent, ("emulator",)),
    "built": (built, ("compiled only",)), "unbuilt": (unbuilt, ("compiled only",)), "crash": (crash, ("emulator",)),
    "nothing": (good, ()), "present": (good, ("hardware", "emulator")),
}

class Vendor(ssd.vendor.Vendor):
    def overrides(self):
        return [
            Override(op, name, "vendor.py", partial(load, op), lambda means=means: means)
            for op in ("augment", "encode", "loss", "detect") for name, (load, means) in KINDS.items()
        ]
"""


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: str):
    """A vendor `acme` whose overrides are named after what is wrong with them. Processes of the suite start warm."""
    monkeypatch.setattr(sys, "executable", warm_python)
    (tmp_path / "acme" / "config").mkdir(parents=True)
    (tmp_path / "acme" / "vendor.py").write_text(VENDOR)
    (tmp_path / "acme" / "config" / "one.toml").write_text('encode_op = "good"\n')
    (tmp_path / "acme" / "config" / "plain.toml").write_text("log_freq = 1\n")
    monkeypatch.setenv("SSD_VENDOR_PATH", str(tmp_path))
    return load_vendor("acme")


def rows_of(vendor, op: str, name: str, **options) -> list[Row]:
    return run_conformance(vendor, [op], names=[name], plan=Plan(quick=True), **options)


def case(op: str, part: str):
    [found] = [c for c in cases_of(op) if part in c.name]
    return found


@pytest.mark.parametrize("op", OP_NAMES)
def test_every_op_is_tried_on_the_edges_of_its_contract(op: str) -> None:
    names = " | ".join(c.name for c in cases_of(op))
    edges = {
        "augment": ("B=1", "B=3", "float32", "bfloat16", "float16", "channels last", "4 channels", "non-contiguous"),
        "encode": ("no box", "1 box", "every default box positive", "ties", "B=1", "B=3", "non-contiguous"),
        "loss": ("no box", "1 positive", "every default box positive", "ties", "B=1", "B=3", "bfloat16", "float16",
                 "non-contiguous"),
        "detect": ("nothing over", "1 detection", "ties", "B=1", "B=3", "bfloat16", "float16", "non-contiguous"),
        "crop": ("RGB", "YUV 4:2:0", "B=1", "B=3", "1 pixel", "odd sizes", "inference mode", "non-contiguous"),
    }[op]  # fmt: skip
    assert [edge for edge in edges if edge not in names] == []
    assert sum(c.quick for c in cases_of(op)) >= 2
    assert timed_case(op, 2).make()[0].shape[0] == 2


@pytest.mark.parametrize("op", OP_NAMES)
def test_the_reference_is_no_distance_from_itself(op: str) -> None:
    for one in cases_of(op):
        if one.quick:
            outcome = compare(one, getattr(REFERENCE, op), CPU)
            half = 0.5 if op == "crop" else torch.finfo(one.dtype).eps / 2
            rounds = outcome.output in ROUNDED and one.dtype != torch.float32
            assert outcome.error <= (half if rounds else 0), "the rounding, to the nearest"
            assert outcome.ok


def rounded_once(*inputs, **options):
    """The reference, whose scores are computed in float64 and then rounded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", lambda logits, dim: torch.softmax(logits.double(), dim).float())
        return REFERENCE.detect(*inputs, **options)


def test_what_adds_up_better_than_the_reference_passes_with_half_of_the_tolerance_to_spare() -> None:
    """A sum's order is the kernel's own, so no case may be about the rounding that the reference's order brings."""
    for one in cases_of("detect"):
        assert compare(one, rounded_once, CPU).share() <= 1 / 2, one.name


def test_cases_are_what_their_names_say() -> None:
    labels = REFERENCE.encode(*case("encode", "every default").make(), criteria=-0.5)[1]
    assert (labels > 0).all()
    _, _, _, labels = case("loss", "every default").make()
    assert (labels > 0).all()
    positives = (case("loss", "more than all").make()[3] > 0).sum()
    assert 4 * positives > 8732
    found = outputs(case("detect", "ties: one"), REFERENCE.detect, case("detect", "ties: one").make())
    assert found["count"].item() == 200
    assert len(found["scores"][0].unique()) < 5
    detect = case("detect", "more than 200")
    unlimited = REFERENCE.detect(*detect.make(), nms_overlap=2.0, max_candidates=9000, max_detections=9000)
    assert (unlimited.labels[0].bincount()[1:] > 200).all()
    for op in OP_NAMES:
        [strided] = [c for c in cases_of(op) if "non-contiguous" in c.name]
        assert not strided.make()[0].is_contiguous()


def ratio_2(*inputs, **options):
    return REFERENCE.loss(*inputs, negative_ratio=2, **options)


def last_tie(locations, logits, offsets, labels):
    return REFERENCE.loss(locations.flip(2), logits.flip(2), offsets.flip(2), labels.flip(1))


def no_smooth_l1_gradient(locations, *inputs):
    return REFERENCE.loss(locations * 0.999 + locations.detach() * 0.001, *inputs)


def last_truth(boxes, labels, defaults):
    return REFERENCE.encode(boxes.flip(1), labels.flip(1), defaults)


def criteria(*inputs, **options):
    return REFERENCE.encode(*inputs, criteria=0.49)


def high_defaults(locations, logits, defaults):
    flipped = type(defaults)(defaults.xywh.flip(0), defaults.ltrb.flip(0))
    return REFERENCE.detect(locations.flip(2), logits.flip(2), flipped)


def strict_overlap(*inputs, **options):
    return REFERENCE.detect(*inputs, nms_overlap=0.51)


def few_candidates(*inputs, **options):
    return REFERENCE.detect(*inputs, max_candidates=190)


def one_label_off(*inputs):
    found = REFERENCE.detect(*inputs)
    labels = found.labels.clone()
    labels[0, 0] += 1
    return Detections(found.boxes, found.scores, labels, found.count)


def never_mirrored(images, draws, **options):
    return REFERENCE.augment(images, type(draws)(draws.flip & False, draws.factors, draws.order), **options)


def fixed_order(images, draws, **options):
    order = torch.arange(4).expand_as(draws.order)
    return REFERENCE.augment(images, type(draws)(draws.flip, draws.factors, order), **options)


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("loss", ratio_2), ("loss", last_tie), ("loss", no_smooth_l1_gradient), ("encode", last_truth),
        ("encode", criteria), ("detect", high_defaults), ("detect", strict_overlap), ("detect", few_candidates),
        ("detect", one_label_off), ("augment", never_mirrored), ("augment", fixed_order),
    ],
)  # fmt: skip
def test_one_broken_rule_is_seen_by_a_quick_case(op: str, function) -> None:
    assert not all(compare(one, function, CPU).ok for one in cases_of(op) if one.quick)


def test_shape_precision_layout_and_finiteness_have_no_tolerance() -> None:
    one = case("augment", "B=1")
    with pytest.raises(Mismatch, match="float32, not"):
        compare(one, lambda *a, **k: REFERENCE.augment(*a, **k).float(), CPU)
    with pytest.raises(Mismatch, match="images is"):
        compare(one, lambda *a, **k: REFERENCE.augment(*a, **k)[:, :3], CPU)
    outcome = compare(one, lambda *a, **k: REFERENCE.augment(*a, **k | {"channels_last": True}), CPU)
    assert (outcome.output, outcome.ok) == ("layout", False)
    with pytest.raises(Mismatch, match="not finite"):
        compare(case("loss", "not numbers"), lambda *a: REFERENCE.loss(*a).nan_to_num(), CPU)


def test_an_override_that_writes_to_its_inputs_is_red() -> None:
    def careless(boxes, labels, defaults, **options):
        found = REFERENCE.encode(boxes, labels, defaults, **options)
        boxes.zero_()
        return found

    with pytest.raises(Mismatch, match="wrote to its inputs"):
        trial(case("encode", "1 box, tiny"), careless, CPU)


def test_stand_ins_run_in_children_and_the_absent_hardware_is_not_run(vendor) -> None:
    rows = rows_of(vendor, "encode", "good")
    assert {(row.means, row.verdict) for row in rows} == {("emulator", "pass"), (HARDWARE, "not run")}
    assert all(row.error == 0 and row.note for row in rows if row.ok)
    assert "emulator" in rows[-1].note


def test_a_wrong_override_fails_with_its_error_and_what_was_allowed(vendor) -> None:
    rows = [row for row in rows_of(vendor, "augment", "wrong") if row.means == "emulator"]
    assert "FAIL" in {row.verdict for row in rows}
    [row] = [row for row in rows if "float32" in row.case]
    assert row.error > row.tolerance > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", "MachineError: no such library"),
        ("crash", "exit code 9: out of bounds"),
        ("unbuilt", "register spill"),
    ],
)
def test_an_override_that_cannot_run_is_red_and_says_why(vendor, name: str, words: str) -> None:
    red = [row for row in rows_of(vendor, "encode", name) if row.ok is False]
    assert len(red) == 1
    assert words in red[0].note


def test_what_was_only_compiled_did_not_pass(vendor) -> None:
    rows = rows_of(vendor, "loss", "built")
    assert [(row.case, row.verdict) for row in rows] == [
        ("first kernel", "compiled"), ("second kernel", "compiled"), ("all", "not run"),
    ]  # fmt: skip
    assert rows[0].means == COMPILED_ONLY
    assert rows[0].error is None


def test_present_hardware_is_preferred_and_means_can_be_chosen(vendor) -> None:
    assert {row.means for row in rows_of(vendor, "encode", "present")} == {HARDWARE}
    assert {row.means for row in rows_of(vendor, "encode", "present", means=["emulator"])} == {"emulator"}
    [row] = rows_of(vendor, "encode", "nothing")
    assert (row.verdict, row.note) == ("not run", "this machine has: no means to run it")


def test_hardware_rows_time_the_override_and_the_reference(vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    import ssd.conformance.run as run

    monkeypatch.setattr(run, "timed_case", lambda op: timed_case(op, 1))
    monkeypatch.setattr(Plan, "tries", lambda self, op, largest, hardware: [(cases_of(op)[0], compare)])
    monkeypatch.setattr(run, "TIMED_RUNS", 2)
    rows = run_conformance(vendor, ["encode"], names=["present"])
    assert [row.seconds is not None for row in rows] == [False, True]
    assert rows[-1].seconds > 0
    assert rows[-1].reference_seconds > 0


def test_command_writes_a_table_and_its_exit_code_says_whether_a_row_is_red(
    vendor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert check_command("acme", config="one", quick=True) == 0
    text = capsys.readouterr().out
    assert "B=3, 9 places" in text
    assert "not run" in text
    assert "3 pass, 0 compiled, 0 FAIL, 1 not run" in text
    assert check_command("acme", config="plain") == 0
    assert "no override to check" in capsys.readouterr().out


def test_command_writes_json(tmp_path: Path, vendor, capsys: pytest.CaptureFixture[str]) -> None:
    source = (tmp_path / "acme" / "vendor.py").read_text().replace('"crash": (crash', '"crash": (absent')
    (tmp_path / "acme" / "vendor.py").write_text(source.replace("KINDS.items()", 'KINDS.items() if name == "absent"'))
    sys.modules.pop("ssd_vendor_acme")
    assert check_command("acme", quick=True, as_json=True, op=["encode"]) == EXIT_INTERNAL
    document = json.loads(capsys.readouterr().out)
    assert document["vendor"] == "acme"
    assert [row["verdict"] for row in document["rows"]] == ["FAIL", "not run"]
    assert set(document["rows"][0]) >= {"op", "override", "case", "means", "ok", "error", "tolerance", "seconds"}


def test_what_does_not_exist_is_a_config_error(vendor) -> None:
    with pytest.raises(ConfigError, match="no vendor is called"):
        check_command("acmee")
    with pytest.raises(ConfigError, match="no op is called 'losss'"):
        run_conformance(vendor, ["losss"])
    with pytest.raises(ConfigError, match="overrides none of what was asked for"):
        run_conformance(vendor, ["loss"], names=["fast"])


def test_a_failed_case_says_how_it_is_run_alone(vendor, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    red = Row("loss", "wrong", "ties: one score for all", "emulator", False, 1.0, 0.1, note="loss")
    monkeypatch.setattr("ssd.conformance.report.run_conformance", lambda *a, **k: [red])
    assert check_command("acme", seed=7) == EXIT_INTERNAL
    said = capsys.readouterr().out
    alone = "python -m ssd vendors check acme --op loss --means emulator --case 'ties: one score for all' --seed 7"
    assert alone in said
    assert "seed 7" in said


def test_what_is_no_case_of_an_op_is_not_offered_alone(vendor, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """An override that does not load, a row of the device, a kernel that does not compile, and what passed."""
    rows = [
        Row("loss", "wrong", "all", "emulator", False),
        Row("device", "", "copies", HARDWARE, False),
        Row("loss", "wrong", "first kernel", COMPILED_ONLY, False),
        Row("loss", "good", "1 box", "emulator", True, 0.0, 1.0),
        Row("loss", "good", "all", HARDWARE, None),
    ]
    for chosen, code in ((rows, EXIT_INTERNAL), (rows[3:], 0)):
        monkeypatch.setattr("ssd.conformance.report.run_conformance", lambda *a, chosen=chosen, **k: chosen)
        assert check_command("acme", seed=7) == code
        assert "A failed case alone:" not in capsys.readouterr().out


def test_a_table_names_an_override_once_and_numbers_stand_below_each_other() -> None:
    rows = [
        Row("loss", "mine", "one", "emulator", True, 0.0, 1e-5, note="loss"),
        Row("loss", "mine", "two", "emulator", False, 0.25, 1e-5, 0.002, 0.0015),
        Row("loss", "mine", "all", HARDWARE, None, seconds=0.002, note="no device"),
        Row("loss", "mine", "kernel", COMPILED_ONLY, True, reference_seconds=0.002),
    ]
    out = io.StringIO()
    SafeConsole(file=out, width=160).print(table(rows))
    lines = out.getvalue().splitlines()
    assert [" ".join(line.split()) for line in lines if line.strip(" ─")] == [
        "op override by means of case result worst output, or why error allowed time",
        "loss mine emulator one pass loss 0 1.0e-05",
        "two FAIL 2.5e-01 1.0e-05 2.000 ms, reference 1.500 ms",
        "loss mine hardware all not run no device",
        "loss mine compiled only kernel compiled",
    ]
    heading, _, first, second = [line for line in lines if line.strip()][:4]
    assert heading.index("error") + len("error") == first.index(" 0 ") + 2 == second.index("2.5e-01") + len("2.5e-01")
    assert heading.index("case") == first.index("one") == second.index("two")


@pytest.mark.parametrize(
    ("asked", "here", "chosen", "on_device"),
    [
        ({}, False, (None, None, None), None),
        ({"config": "one"}, False, (["encode"], None, ["good"]), None),
        ({"config": "one", "op": ["loss"]}, False, None, None),
        ({"config": "plain"}, False, None, None),
        ({"op": ["loss"], "means": ["emulator"]}, False, (["loss"], ["emulator"], None), None),
        ({"op": ["network"]}, False, None, None),
        ({}, True, (["augment", "encode", "loss", "detect"], None, None), (False, (), None)),
        ({"op": ["crop"], "quick": True}, True, None, (True, ["crop"], None)),
        ({"op": ["loss", "network"], "case": "one"}, True, (["loss"], None, None), (False, ["loss", "network"], "one")),
        ({"config": "plain", "means": ["hardware"]}, True, None, (False, (), None)),
        ({"config": "one"}, True, (["encode"], None, ["good"]), (False, (), None)),
        ({"op": ["network"]}, True, None, (False, ["network"], None)),
        ({"means": ["emulator"]}, True, (None, ["emulator"], None), None),
    ],
)
def test_which_overrides_are_checked_and_when_the_device_is(
    vendor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked, here, chosen, on_device
) -> None:
    found: dict[str, object] = {}
    row = Row("loss", "mine", "one", "emulator", True)

    def run(vendor, ops, means, names, plan) -> list[Row]:
        found["overrides"] = (ops, means, names)
        return [row]

    def look(vendor, config, quick, ops, case) -> list[Row]:
        found["device"] = (quick, ops, case)
        return [row]

    monkeypatch.setattr("ssd.conformance.report.has_device", lambda vendor, config: here)
    monkeypatch.setattr("ssd.conformance.report.device_rows", look)
    monkeypatch.setattr("ssd.conformance.report.run_conformance", run)
    assert check_command("acme", **asked) == 0
    assert (found.get("overrides"), found.get("device")) == (chosen, on_device)
    assert ("nothing was run" in capsys.readouterr().out) == (not found)


def test_a_case_that_nobody_has_is_refused(vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.conformance.report.run_conformance", lambda *about, **more: [])
    with pytest.raises(ConfigError, match="no case is called 'odd' here"):
        check_command("acme", case="odd")


def test_one_case_can_be_run_alone(vendor) -> None:
    rows = run_conformance(vendor, ["loss"], ["emulator"], names=["good"], plan=Plan(case="ties: one score for all"))
    assert [(row.case, row.ok) for row in rows] == [("ties: one score for all", True)]
    assert "calls the reference op itself" in rows[0].note
    with pytest.raises(ConfigError, match=r"no case is called 'ties: one score for al'\. Did you mean"):
        run_conformance(vendor, ["loss"], plan=Plan(case="ties: one score for al"))


def test_the_document_keeps_its_schema(vendor, root: Path, held_to: Callable) -> None:
    schema = json.loads((root / "docs" / "vendors_check.schema.json").read_text())
    rows = [Row("loss", "good", "one", "emulator", True, 0.0, 1e-5), Row("loss", "good", "all", HARDWARE, None)]
    written = json.loads(json.dumps(document(vendor, Plan(seed=3), rows)))
    held_to(schema, written)
    assert written["seed"] == 3
    assert written["versions"]["torch"] == torch.__version__.split("+")[0] or written["versions"]["torch"]
    with pytest.raises(AssertionError):
        held_to(schema, written | {"seed": "3"})


@pytest.mark.parametrize("name", ["nvidia", "amd", "iluvatar"])
def test_what_a_real_vendor_sends_keeps_the_schema(
    name: str, root: Path, held_to, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("triton")
    asked = {"op": ["encode"], "means": ["emulator", HARDWARE], "seed": 5, "case": "1 box"}
    assert check_command(name, as_json=True, **asked) == 0
    written = json.loads(capsys.readouterr().out)
    held_to(json.loads((root / "docs" / "vendors_check.schema.json").read_text()), written)
    assert (written["vendor"], written["seed"], written["case"]) == (name, 5, "1 box")
    assert all(written["versions"][one] for one in ("python", "ssd", "torch", "triton", "numpy"))
    assert "pass" in {row["verdict"] for row in written["rows"] if row["override"] == "triton"}
