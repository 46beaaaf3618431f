"""A device of torch's own registration that has as little as a device may: it trains to the CPU's numbers.

The device is tests/accelerator/ssdtest, a vendor's folder outside of the repository's root.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd.config import Config
from ssd.conformance import device_checks
from ssd.run.checkpoint import load_checkpoint
from ssd.vendor import load_vendor
from ssd.vendor.csrc.build import gxx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a shared library of Linux"),
    pytest.mark.skipif(gxx(32) is None, reason="no C++ compiler: the tests' accelerator cannot be built"),
]

REFUSED = [
    "float64", "half", "channels_last", "pinned", "non_blocking", "set_device", "get_device_name", "synchronize",
    "Event", "Stream", "stream", "current_stream", "get_rng_state", "set_rng_state", "manual_seed_all",
    "_is_in_bad_fork", "current_device", "get_amp_supported_dtype", "mem_get_info", "is_available",
]  # fmt: skip
"""All that the device can refuse. It is left with tensors, ops, and copies."""
ALL = ",".join(REFUSED)
PINS = not torch.__version__.startswith("2.4.")
"""torch 2.4 has page-locked memory for CUDA alone."""
NEAR = 1e-5
"""Relative: the device runs the CPU's own kernels, so that only the order of a sum may differ."""
OFF = {"SSDTEST_REFUSES": "", "SSDTEST_WRONG": ""}


def accelerator_environ(root: Path) -> dict[str, str]:
    """Variables with which a process finds the vendor `ssdtest`."""
    own = {"SSD_VENDOR_PATH": str(root / "tests" / "accelerator"), "PYTHONPATH": str(root / "base")}
    return {**os.environ, **OFF, **own}


@pytest.fixture(scope="module")
def answers(root: Path, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Exit code and text of each of `commands`, and their folder; run once for all processes of the test session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "accelerator"
    folder.mkdir(exist_ok=True)
    asked, found = folder / "commands.json", folder / "answers.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            asked.write_text(json.dumps(commands(folder, small)))
            script = root / "tests" / "accelerator" / "drive.py"
            subprocess.run([sys.executable, script, asked, found], env=accelerator_environ(root), check=True)
    return {"folder": folder, **json.loads(found.read_text())}


def commands(folder: Path, small: list[str]) -> dict[str, dict[str, Any]]:
    """The commands of the tests below, in the order they run."""
    drawn = ["--checkpoint", str(folder / "device"), "--images", str(folder / "cpu" / "detections.jpg")]
    asking = ["--name", "ssdtest", "--config", "short", "--cuda_graph", "--compile", "--allreduce_dtype", "bf16"]
    on_device = ["--name", "ssdtest", *small, "--output", str(folder / "device")]
    waiting = ["train", "--name", "ssdtest", *small, "--output", str(folder / "waits"), "--log_freq", "2"]
    waiting += ["--epochs", "5", "--eval_epochs", "4", "--checkpoint_interval", "2"]
    half = {
        f"{name} {precision}": {"argv": ["train", "--name", name, *small, "--precision", precision, "--max_steps", "3"]}
        for name in ("cpu", "ssdtest")
        for precision in ("bf16", "fp16")
    }
    for name, one in half.items():
        one["argv"] += ["--output", str(folder / name)]
    return half | {
        "cpu": {"argv": ["train", "--name", "cpu", *small, "--output", str(folder / "cpu")]},
        "train": {"argv": ["train", *on_device, "--max_steps", "6"], "refuses": ALL},
        "resume": {"argv": ["train", *on_device, "--resume", "--max_steps", "100"], "refuses": ALL},
        "detect": {
            "argv": ["detect", "--name", "ssdtest", *drawn, "--output", str(folder / "pictures")],
            "refuses": ALL,
        },
        "waits": {"argv": waiting, "waits": True},
        "bench": {
            "argv": ["bench", "--quick", "--json", "--name", "ssdtest", *small, "--cache_dir", str(folder / "bench")],
            "refuses": "Event,channels_last",
        },
        "check": {"argv": ["check", "--name", "ssdtest", "--config", "short", "--optimizer", "torch_fused"]},
        "check little": {"argv": ["check", "--name", "ssdtest", "--config", "smoke"], "refuses": ALL},
        "check keys": {"argv": ["check", *asking], "refuses": ALL},
        "train keys": {
            "argv": ["train", "--name", "ssdtest", "--config", "short", "--output", str(folder / "never")],
            "refuses": "channels_last",
        },
        "check wrong": {"argv": ["check", "--name", "ssdtest", "--config", "smoke"], "wrong": "scatter_reduce"},
        "vendors check": {"argv": ["vendors", "check", "ssdtest", "--quick", "--config", "short"]},
        "vendors check wrong": {"argv": ["vendors", "check", "ssdtest", "--quick", "--json"], "wrong": "sort"},
        "one case": {
            "argv": ["vendors", "check", "ssdtest", "--op", "loss", "--json", "--case", "no box in the batch"],
        },
    }


def test_a_device_with_nothing_but_tensors_trains_to_the_losses_of_the_cpu(
    answers: dict[str, Any], records: Callable[[Path, str], list[dict]]
) -> None:
    """Half of the run, and the other half from its checkpoint."""
    assert [answers[name]["code"] for name in ("cpu", "train", "resume")] == [4, 5, 4], answers
    folders = [answers["folder"] / name for name in ("cpu", "device")]
    of_cpu, of_device = ([one["loss"] for one in records(folder, "train")] for folder in folders)
    assert len(of_cpu) == 16
    assert of_device == pytest.approx(of_cpu, rel=NEAR)
    scores = [records(folder, "evaluation")[-1] for folder in folders]
    assert scores[1]["AP"] == pytest.approx(scores[0]["AP"], abs=NEAR)


def test_in_half_precision_too_it_trains_to_the_losses_of_the_cpu(
    answers: dict[str, Any], records: Callable[[Path, str], list[dict]]
) -> None:
    """A device that has bf16 and fp16; fp16 comes with loss scaling. The first losses tell the precisions apart."""
    first = {records(answers["folder"] / "cpu", "train")[0]["loss"]}
    for precision in ("bf16", "fp16"):
        losses = []
        for name in ("cpu", "ssdtest"):
            assert answers[f"{name} {precision}"]["code"] == 5, answers[f"{name} {precision}"]
            losses.append([one["loss"] for one in records(answers["folder"] / f"{name} {precision}", "train")])
        assert len(losses[0]) == 3
        assert losses[1] == pytest.approx(losses[0], rel=1e-2)  # the relative size of bf16's last place is 0.8%
        first.add(losses[1][0])
    assert len(first) == 3


def test_its_checkpoint_is_one_of_the_cpu(answers: dict[str, Any]) -> None:
    saved = load_checkpoint(answers["folder"] / "device" / "checkpoint.pt")
    tensors = [*saved.model.values(), *(state["momentum_buffer"] for state in saved.optimizer["state"].values())]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    other = load_checkpoint(answers["folder"] / "cpu" / "checkpoint.pt")
    for name, tensor in saved.model.items():
        assert tensor.allclose(other.model[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.skipif(not PINS, reason="torch 2.4 pins memory for CUDA alone, and plain copies wait")
def test_only_an_evaluation_and_a_checkpoint_make_an_epoch_s_end_wait(
    answers: dict[str, Any], records: Callable[[Path, str], list[dict]]
) -> None:
    """Every other wait is for an event that has at least a step's work behind it, as on a device that is kept busy."""
    assert answers["waits"]["code"] == 4, answers["waits"]["said"]
    behind: dict[int, list[int]] = {}
    epoch = 0
    for what, value in answers["waits"]["waits"]:
        if what in ("epoch_start", "eval_start"):
            epoch = value["epoch_num"] if what == "epoch_start" else 0
        elif epoch and isinstance(value, int):
            behind.setdefault(epoch, []).append(value)
    a_step = 500  # operations; one of the run has more than 900
    assert min(behind[1] + behind[3]) > a_step, "nothing follows these epochs"
    for waited in (2, 4, 5):
        assert min(behind[waited]) < 10, "a checkpoint or an evaluation follows: it waits for the last operation"
    assert [one["epoch"] for one in records(answers["folder"] / "waits", "epoch")] == [1, 2, 3, 4, 5]
    steps = records(answers["folder"] / "waits", "steps")
    assert [(one["epoch"], one["first_step"], len(one["loss"])) for one in steps] == [
        (number, 4 * number - 3, 4) for number in range(1, 6)
    ]


def test_a_device_without_a_name_is_described(answers: dict[str, Any]) -> None:
    system = json.loads((answers["folder"] / "device" / "system.json").read_text())
    assert (system["accelerators_per_node"], system["accelerator_model_name"]) == ("2", "unknown")


def test_its_parts_are_measured(answers: dict[str, Any]) -> None:
    """Copies to it too; and layouts that it lacks are not tried."""
    assert answers["bench"]["code"] == 0, answers["bench"]["said"]
    said = answers["bench"]["said"]
    found = json.loads(said[said.index("{\n") : said.rindex("}") + 1])
    assert all(found["figures"][name] > 0 for name in ("copy", "step", "data_step", "evaluation"))
    assert set(found["images_per_s_of_host"]) > {"training steps", "copies to the device", "decoding"}
    tried = {one["key"]: one["why"] for one in found["trials"]}
    assert tried["nhwc"] == "this device lacks it"


def test_a_checkpoint_detects_on_it(answers: dict[str, Any]) -> None:
    assert answers["detect"]["code"] == 0, answers["detect"]["said"]


def test_two_processes_share_their_gradients_through_the_host(
    root: Path, small: list[str], tmp_path: Path, command: Callable, records: Callable[[Path, str], list[dict]]
) -> None:
    """gloo takes no tensors of the device: gradients, weights and statistics go by way of the host."""
    flags = [*small, "--nproc_per_node", "2", "--bn_group", "2", "--max_steps", "3"]
    flags += ["--train_batch_size", "1", "--base_learning_rate", "0.001"]
    losses = []
    for name in ("cpu", "ssdtest"):
        environ = {**accelerator_environ(root), "SSDTEST_REFUSES": ALL}
        done = command("launch", "--name", name, *flags, "--output", str(tmp_path / name), **environ)
        assert done.returncode == 5, done.stderr
        losses.append([one["loss"] for one in records(tmp_path / name, "train")])
    assert len(losses[0]) == 3
    # Without float64 the statistics of batch norm are summed in float32, and so differ in their last bits.
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_check_computes_on_the_device_and_says_how_far_it_is_off(answers: dict[str, Any]) -> None:
    found = answers["check"]
    assert found["code"] == 0, found["said"]
    said = " ".join(found["said"].split())
    assert "tensors on ssdtest:0 float32, int64, uint8, bool" in said
    assert "precision = bf16 ssdtest has it" in said
    assert ("has all that helps" if PINS else "does without page-locked memory") in said
    assert re.search("step: one whole step on ssdtest:0, narrow, bf16 .* of the largest, 0.2 is allowed", said)
    assert "evaluation: one batch on ssdtest:0" in said


def test_check_passes_a_device_that_has_little_and_is_asked_for_little(answers: dict[str, Any]) -> None:
    found = answers["check little"]
    assert found["code"] == 0, found["said"]
    said = " ".join(found["said"].split())
    assert "does without float64, page-locked memory, timed events, a name, channels-last, bf16, fp16" in said


def test_check_names_each_key_that_asks_for_what_the_device_lacks(answers: dict[str, Any]) -> None:
    found = answers["check keys"]
    said = " ".join(found["said"].split())
    assert found["code"] == 7, found["said"]
    for key, value, otherwise in (
        ("nhwc", "true", "false"),
        ("precision", "bf16", "fp32"),
        ("cuda_graph", "true", "false"),
        ("compile", "true", "false"),
        ("allreduce_dtype", "bf16", "fp32"),
    ):
        assert re.search(f"FAILED {key} = {value} ssdtest has no .* set {key} = {otherwise}", said), (key, said)


def test_a_run_ends_before_it_begins_where_the_device_lacks_what_a_key_asks(answers: dict[str, Any]) -> None:
    found = answers["train keys"]
    assert found["code"] == 7
    assert found["said"] == "error: nhwc = true: ssdtest has no channels-last tensors. Remedy: set nhwc = false.\n"
    assert not (answers["folder"] / "never").exists()


def test_check_finds_a_step_that_computes_something_else(answers: dict[str, Any]) -> None:
    found = answers["check wrong"]
    assert found["code"] == 7
    assert re.search(r"FAILED\s+step: one whole step", found["said"])
    assert "vendors check ssdtest --config" in found["said"]


def test_vendors_check_holds_a_device_without_overrides_to_the_cpu(answers: dict[str, Any]) -> None:
    found = answers["vendors check"]
    assert found["code"] == 0, found["said"]
    for words in ("B=3, bfloat16, channels last", "three steps, bf16", "one whole step, fp32", "batch norm, bf16"):
        assert words in found["said"]
    assert re.search("ssdtest: [1-9][0-9]* pass, 0 compiled, 0 FAIL, 0 not run", found["said"])


def test_vendors_check_finds_the_op_that_is_wrong(answers: dict[str, Any]) -> None:
    """Of the ops and parts, those that sort; nothing else is blamed."""
    found = answers["vendors check wrong"]
    assert found["code"] == 1
    rows = json.loads(found["said"])["rows"]
    assert {row["op"] for row in rows if not row["ok"]} == {"loss", "detect", "step", "evaluation"}
    assert {row["op"] for row in rows if row["ok"]} >= {"device", "augment", "encode", "model", "optimizer"}


def test_one_case_of_a_device_runs_alone(answers: dict[str, Any]) -> None:
    rows = json.loads(answers["one case"]["said"])["rows"]
    assert [(row["op"], row["override"], row["case"], row["ok"]) for row in rows] == [
        ("loss", "reference", "no box in the batch", True)
    ]


def test_a_run_on_the_cpu_has_no_device_to_check() -> None:
    assert device_checks(load_vendor("cpu"), Config(name="cpu", data_backend="synthetic", pretrained=False)) == []
