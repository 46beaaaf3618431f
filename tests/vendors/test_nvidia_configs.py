"""nvidia's configs away from their GPUs: two steps on the CPU, and what cannot run there refused by key and remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssd.config import resolve
from ssd.errors import ConfigError, MachineError
from ssd.train import train
from ssd.vendor import load_vendor, select_ops

CPU = ["--device", "cpu", "--nproc_per_node", "1", "--train_batch_size", "2", "--max_steps", "2", "--no-compile"]
SMALL = ["--width", "0.125", "--no-pretrained", "--data_backend", "synthetic", "--synthetic_samples", "8"]
REFERENCE = "--augment_op reference --encode_op reference --loss_op reference --detect_op reference"


@pytest.mark.parametrize("config", ["A100x1x1", "V100x1x1"])
def test_two_steps_on_the_cpu_through_the_reference_ops(
    config: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = [*CPU, *SMALL, *REFERENCE.split(), *(["--precision", "bf16"] if config[0] == "V" else [])]
    caplog.set_level("INFO")
    code = train(resolve(["--name", "nvidia", "--config", config, *flags, "--output", str(tmp_path / "run")], {}))
    assert code == 5
    for value in ("precision bf16", "amp torch", "nhwc True", "head_layout joint", "optimizer torch_fused"):
        assert f", {value}," in caplog.text
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["optimizer"]["value"] == "torch_fused"
    assert written["optimizer"]["from"].startswith("nvidia/config/")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["mfu"], summary["peak"]) == (2, None, "")


def test_kernels_that_cannot_run_on_the_cpu_end_the_run_with_all_their_keys(tmp_path: Path) -> None:
    argv = ["--name", "nvidia", "--config", "H100x1x1", *CPU, *SMALL, "--output", str(tmp_path / "run")]
    with pytest.raises(MachineError) as refusal:
        train(resolve(argv, {}))
    assert str(refusal.value) == (
        "augment_op = triton, encode_op = triton, loss_op = triton, detect_op = triton: vendor nvidia has that for "
        f"cuda, and this run is on cpu. Remedy: {REFERENCE}."
    )


def test_kernels_without_their_gpu_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = resolve(["--name", "nvidia", "--config", "H100x1x1"], {}).config
    with pytest.raises(MachineError, match=r"^augment_op = 'triton' .*lacks its hardware.*set augment_op = reference"):
        select_ops(load_vendor("nvidia"), config)


def test_a_graph_on_the_cpu_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"cuda_graph = true .*device = \"cpu\".*set cuda_graph = false"):
        resolve(["--name", "nvidia", "--config", "H100x1x1", *CPU, "--cuda_graph"], {})
