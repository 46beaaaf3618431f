"""The vendors' folders: each config resolves to the values it claims, and environment files keep their promises."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from ssd.config import Config, resolve
from ssd.config.files import config_files
from ssd.config.folders import BASE_CONFIGS, vendor_folders
from ssd.errors import ConfigError
from ssd.run.schedule import applied_learning_rate
from ssd.vendor import Vendor, load_vendor

OURS = ("amd", "cpu", "iluvatar", "nvidia")

# The original's shipped configs: images a process, processes, learning rate, weight decay, decay epochs, factor,
# warm-up, and the applied rate that its own rule makes of them.
ORIGINAL = {
    ("iluvatar", "V100x1x8"): (120, 8, 2.92e-3, 1.6e-4, (44, 55), 0.1, 650, 0.0875),
    ("iluvatar", "V100x1x1"): (160, 1, 5.2e-3, 1.6e-4, (34, 45), 0.2, 650, 0.025),
    ("iluvatar", "V100x1x8_2.1.0"): (160, 8, 5.2e-3, 1.6e-4, (34, 45), 0.2, 650, 0.2075),
    ("iluvatar", "V100x1x8_wsl"): (200, 8, 5.15e-3, 1.6e-4, (34, 45), 0.2, 650, 0.2575),
    ("iluvatar", "nodali_V100x1x8"): (120, 8, 2.92e-3, 1.6e-4, (44, 55), 0.1, 650, 0.0875),
    ("nvidia", "nodali_V100x1x8"): (120, 8, 2.92e-3, 1.6e-4, (44, 55), 0.1, 650, 0.0875),
    ("nvidia", "V100x1x8"): (120, 8, 2.92e-3, 1.6e-4, (44, 55), 0.1, 650, 0.0875),
    ("nvidia", "V100x1x1"): (120, 1, 2.92e-3, 1.6e-4, (44, 55), 0.1, 650, 0.01),
    ("nvidia", "ddp_V100x1x8"): (128, 8, 2.5e-3, 5e-4, (40, 50), 0.1, 300, 0.08),
}

# Published MLPerf results: round, submitter, global batch -> the log's base rate, weight decay, warm-up, decay epochs.
RESULTS = {
    ("0.7", "NVIDIA", 960): (0.0875, 1.6e-4, 650, (44, 55)),
    ("1.0", "Supermicro", 256): (0.025256, 1.3e-4, 2290, (44, 55)),
    ("1.1", "Dell", 456): (0.04498725, 1.3e-4, 1285, (44, 55)),
    ("1.1", "NVIDIA", 912): (0.0899745, 1.3e-4, 642, (44, 55)),
    ("1.1", "NVIDIA", 1536): (0.192, 1.7e-4, 1145, (48, 60)),
}

# Configs that take a published result's values.
PUBLISHED = {
    ("iluvatar", "V100x1x8"): ("0.7", "NVIDIA", 960),
    ("nvidia", "V100x1x8"): ("0.7", "NVIDIA", 960),
    ("iluvatar", "V100x1x8_192"): ("1.1", "NVIDIA", 1536),
    ("nvidia", "A100x1x1"): ("1.0", "Supermicro", 256),
    ("nvidia", "A100x1x8"): ("1.1", "NVIDIA", 912),
    ("nvidia", "A100x8x8"): ("1.1", "NVIDIA", 1536),
    ("nvidia", "H100x1x8"): ("1.1", "NVIDIA", 912),
    ("nvidia", "H200x1x8"): ("1.1", "NVIDIA", 912),
    ("nvidia", "H100x1x1"): ("1.0", "Supermicro", 256),
    ("nvidia", "H200x1x1"): ("1.1", "Dell", 456),
    ("amd", "MI300Xx1x8"): ("1.1", "NVIDIA", 912),
    ("amd", "MI355Xx1x8"): ("1.1", "NVIDIA", 912),
    ("amd", "MI300Xx1x1"): ("1.0", "Supermicro", 256),
    ("amd", "MI355Xx1x1"): ("1.0", "Supermicro", 256),
}


def resolved(name: str, config: str) -> Config:
    return resolve(["--name", name, "--config", config, "--master_addr", "first-host"], {}).config


def named_configs() -> list[tuple[str, str]]:
    return [(name, config) for name in OURS for config in config_files(vendor_folders({})[name] / "config")]


@pytest.mark.parametrize(("name", "config"), named_configs())
def test_every_config_resolves_and_says_what_it_stands_for(name: str, config: str) -> None:
    assert resolved(name, config).num_classes == 81
    text = config_files(vendor_folders({})[name] / "config")[config].read_text()
    assert text.startswith("# ")


@pytest.mark.parametrize("config", list(config_files(BASE_CONFIGS)))
def test_every_config_of_base_resolves_for_every_vendor(config: str) -> None:
    assert BASE_CONFIGS.joinpath(f"{config}.toml").read_text().startswith("# ")
    assert len({resolved(name, config).model_copy(update={"name": ""}) for name in OURS}) == 1


@pytest.mark.parametrize("key", list(ORIGINAL))
def test_the_originals_hyper_parameters(key: tuple[str, str]) -> None:
    config = resolved(*key)
    batch, processes, rate, decay, epochs, factor, warmup, applied = ORIGINAL[key]
    assert (config.train_batch_size, config.nproc_per_node, config.learning_rate) == (batch, processes, rate)
    assert (config.weight_decay_rate, config.lr_decay_epochs, config.lr_decay_factor) == (decay, epochs, factor)
    assert (config.warmup, config.warmup_factor, config.eval_batch_size, config.log_freq) == (warmup, 0, 160, 20)
    assert (config.epochs, config.threshold, config.gradient_accumulation_steps) == (80, 0.23, 1)
    assert config.base_learning_rate is None
    assert applied_learning_rate(config) == pytest.approx(applied, rel=1e-12)


@pytest.mark.parametrize("key", list(PUBLISHED))
def test_published_values(key: tuple[str, str]) -> None:
    config = resolved(*key)
    assert config.global_batch == PUBLISHED[key][2]
    rate, weight_decay, warmup, decay_epochs = RESULTS[PUBLISHED[key]]
    assert applied_learning_rate(config) == pytest.approx(rate, rel=1e-9)
    assert (config.weight_decay_rate, config.warmup, config.lr_decay_epochs) == (weight_decay, warmup, decay_epochs)


@pytest.mark.parametrize("gpu", ["V100", "A100", "H100", "H200"])
def test_each_gpu_has_a_config_for_one_and_for_eight(gpu: str) -> None:
    for processes in (1, 8):
        found = resolved("nvidia", f"{gpu}x1x{processes}")
        assert (found.nodes, found.nproc_per_node) == (1, processes)


@pytest.mark.parametrize("config", ["A100x1x1", "A100x1x8", "A100x8x8", "H100x1x1", "H100x1x8", "H200x1x1", "H200x1x8"])
def test_newer_gpus_ask_for_the_same_kernels_and_arithmetic(config: str) -> None:
    found = resolved("nvidia", config)
    assert (found.precision, found.nhwc, found.compile, found.optimizer) == ("bf16", True, True, "torch_fused")
    assert (found.head_layout, found.async_eval) == ("joint", True)
    assert {getattr(found, f"{op}_op") for op in ("augment", "encode", "loss", "detect")} == {"triton"}


@pytest.mark.parametrize(
    ("config", "kernels"),
    [("V100x1x1", "cuda"), ("V100x1x8", "cuda"), ("nodali_V100x1x8", "cuda"), ("ddp_V100x1x8", "reference")],
)
def test_gpus_before_capability_8_ask_for_no_triton(config: str, kernels: str) -> None:
    found = resolved("nvidia", config)
    assert {getattr(found, f"{op}_op") for op in ("augment", "encode", "loss", "detect")} == {kernels}
    assert not found.compile


def test_eight_hosts_share_batch_norm_as_the_published_run_did() -> None:
    """NVIDIA's 8 hosts of round 1.1 logged a batch-norm span of 48 images."""
    found = resolved("nvidia", "A100x8x8")
    assert (found.nodes, found.world_size, found.train_batch_size * found.bn_group) == (8, 64, 48)
    with pytest.raises(ConfigError, match="needs master_addr"):
        resolve(["--name", "nvidia", "--config", "A100x8x8"], {})


def test_nvidias_configs_say_that_they_were_not_timed() -> None:
    folder = vendor_folders({})["nvidia"] / "config"
    texts = {name: path.read_text().replace("\n# ", " ") for name, path in config_files(folder).items()}
    untimed = {name for name, text in texts.items() if "timed on hardware yet" in text}
    assert untimed == set(config_files(folder)) - {"ddp_V100x1x8", "nodali_V100x1x8"}


def test_the_originals_default_is_plain_fp32() -> None:
    found = resolved("nvidia", "ddp_V100x1x8")
    assert (found.precision, found.nhwc) == ("fp32", False)


@pytest.mark.parametrize("config", ["smoke", "demo", "tiny"])
def test_small_configs_need_no_backbone_and_end_by_epochs(config: str) -> None:
    found = resolved("cpu", config)
    assert (found.pretrained, found.max_steps, found.nproc_per_node) == (False, None, 1)
    assert found.eval_epochs[-1] == found.epochs


def test_a_config_repeats_no_line_of_the_one_it_extends() -> None:
    for name, config in named_configs():
        folder = vendor_folders({})[name] / "config"
        lines = config_files(folder)[config].read_text().splitlines()
        parents = [line.split('"')[1] for line in lines if line.startswith("extends")]
        for parent in parents:
            files = {**config_files(BASE_CONFIGS), **config_files(folder)}
            inherited = {line for line in files[parent].read_text().splitlines() if "=" in line and line[0] != "#"}
            assert not inherited & set(lines), f"{name}/{config} repeats {parent}"


# vendor.py


@pytest.mark.parametrize("name", OURS)
def test_every_vendor_loads_on_any_machine(name: str) -> None:
    vendor = load_vendor(name)
    assert isinstance(vendor, Vendor)
    assert (vendor.device_type, vendor.backend) == (("cpu", "gloo") if name == "cpu" else ("cuda", "nccl"))


@pytest.mark.parametrize(("version", "ok"), [("2.4.1+corex.4.3.0", True), ("2.4.1", False), ("2.14.1+cu130", False)])
def test_iluvatar_knows_its_own_torch(version: str, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    check = load_vendor("iluvatar").checks(resolved("iluvatar", "V100x1x1"))[0]
    assert (check.ok, check.found) == (ok, f"torch {version}")


@pytest.mark.parametrize(("cuda", "ok"), [("13.0", True), (None, False)])
def test_nvidia_needs_a_torch_for_cuda(cuda: str | None, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert load_vendor("nvidia").checks(resolved("nvidia", "V100x1x1"))[0].ok is ok


# environment_variables.sh


def sourced(root: Path, name: str, times: int, **environ: str) -> dict[str, str]:
    """The environment after sourcing a vendor's file so many times, with unset variables an error."""
    path = root / name / "config" / "environment_variables.sh"
    command = f"set -eu; {f'. {path}; ' * times} env -0"
    environ = {"PATH": os.environ["PATH"], **environ}
    found = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=True)
    assert found.stderr == ""
    return dict(entry.split("=", 1) for entry in found.stdout.split("\0") if entry)


@pytest.mark.parametrize("name", OURS)
def test_an_environment_file_may_be_sourced_twice(root: Path, name: str) -> None:
    once, twice = sourced(root, name, 1), sourced(root, name, 2)
    assert {**once, "_": ""} == {**twice, "_": ""}


@pytest.mark.parametrize("name", OURS)
def test_the_users_value_wins(root: Path, name: str) -> None:
    ours = set(sourced(root, name, 1)) - {"PATH", "LD_LIBRARY_PATH", "PWD", "SHLVL", "_"}
    mine = dict.fromkeys(ours, "mine")
    found = sourced(root, name, 1, **mine)
    assert {key: found[key] for key in ours} == mine


def test_iluvatars_variables(root: Path) -> None:
    found = sourced(root, "iluvatar", 1, LD_LIBRARY_PATH="/lib")
    assert found["LD_LIBRARY_PATH"] == "/usr/local/corex/lib:/lib"
    assert found["PATH"].startswith("/usr/local/corex/bin:")
    assert found["DRT_MEMCPYUSEKERNEL"] == "20000000000"
    assert found["NCCL_NET_SHARED_BUFFERS"] == "0"
