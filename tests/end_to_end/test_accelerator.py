"""A device of torch's own registration that has as little as a device may: it trains to the CPU's numbers.

The device is tests/accelerator/ssdtest, a vendor's folder outside of the repository's root.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd.run.checkpoint import load_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a shared library of Linux"),
]

REFUSED = [
    "float64", "half", "channels_last", "pinned", "non_blocking", "set_device", "get_device_name", "synchronize",
    "Event", "Stream", "stream", "get_rng_state", "set_rng_state", "manual_seed_all", "_is_in_bad_fork",
    "current_device", "get_amp_supported_dtype", "mem_get_info", "is_available",
]  # fmt: skip
"""All that the device can refuse. It is left with tensors, ops, and copies."""
ALL = ",".join(REFUSED)
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
    on_device = ["--name", "ssdtest", *small, "--output", str(folder / "device")]
    return {
        "cpu": {"argv": ["train", "--name", "cpu", *small, "--output", str(folder / "cpu")]},
        "train": {"argv": ["train", *on_device, "--max_steps", "6"], "refuses": ALL},
        "resume": {"argv": ["train", *on_device, "--resume", "--max_steps", "100"], "refuses": ALL},
        "detect": {
            "argv": ["detect", "--name", "ssdtest", *drawn, "--output", str(folder / "pictures")],
            "refuses": ALL,
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


def test_its_checkpoint_is_one_of_the_cpu(answers: dict[str, Any]) -> None:
    saved = load_checkpoint(answers["folder"] / "device" / "checkpoint.pt")
    tensors = [*saved.model.values(), *(state["momentum_buffer"] for state in saved.optimizer["state"].values())]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    other = load_checkpoint(answers["folder"] / "cpu" / "checkpoint.pt")
    for name, tensor in saved.model.items():
        assert tensor.allclose(other.model[name], rtol=1e-4, atol=1e-6), name


def test_a_device_without_a_name_is_described(answers: dict[str, Any]) -> None:
    system = json.loads((answers["folder"] / "device" / "system.json").read_text())
    assert (system["accelerators_per_node"], system["accelerator_model_name"]) == ("2", "unknown")


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
