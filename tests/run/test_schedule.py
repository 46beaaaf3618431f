"""The learning rate of every step, against the numbers of the original and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ssd.config import Config, resolve
from ssd.run.schedule import applied_learning_rate, learning_rate_at


def v100x1x8(batch: int, processes: int) -> Config:
    """The original's hyper-parameters that golden/schedule.npz was made with, at another batch."""
    return Config(
        train_batch_size=batch,
        nproc_per_node=processes,
        learning_rate=2.92e-3,
        warmup=650,
        lr_decay_epochs=(44, 55),
        lr_decay_factor=0.1,
    )


@pytest.mark.parametrize(("batch", "processes"), [(120, 8), (192, 8), (32, 1)])
def test_the_original_s_logged_rates(golden: Path, batch: int, processes: int) -> None:
    config = v100x1x8(batch, processes)
    numbers = np.load(golden / "schedule.npz")
    prefix = f"b{config.global_batch}"
    assert applied_learning_rate(config) == pytest.approx(float(numbers[f"{prefix}_base_lr"]), abs=1e-12)
    per_epoch = int(numbers[f"{prefix}_iters_per_epoch"])
    logged = numbers[f"{prefix}_lr_reported"]
    ours = [learning_rate_at(config, step, step // per_epoch + 1) for step in range(len(logged))]
    np.testing.assert_allclose(ours, logged, atol=1e-12, rtol=0)


@pytest.mark.parametrize("prefix", ["b960", "b1536", "b32"])
def test_decay_starts_with_its_epoch(golden: Path, prefix: str) -> None:
    processes = {"b960": (120, 8), "b1536": (192, 8), "b32": (32, 1)}[prefix]
    config = v100x1x8(*processes)
    numbers = np.load(golden / "schedule.npz")
    for epoch, base in zip(numbers["epochs"], numbers[f"{prefix}_epoch_base_lr"], strict=True):
        assert learning_rate_at(config, 10**6, int(epoch)) == pytest.approx(float(base), abs=1e-12)


def test_our_named_configs_apply_the_rates_of_the_original_s(golden: Path) -> None:
    facts = json.loads(str(np.load(golden / "schedule.npz")["shipped_configs_json"]))
    ours = {"config_nv_V100x1x8.py": ("nvidia", "V100x1x8")}  # else iluvatar's config of the same name
    checked = 0
    for fact in facts:
        if fact["event"] != "iluvatar":  # the default event does not round; ddp_V100x1x8 states the applied rate
            continue
        name = fact["config"].removeprefix("config_").removesuffix(".py")
        vendor, name = ours.get(fact["config"], ("iluvatar", name))
        config = resolve(["--name", vendor, "--config", name], {}).config
        assert config.global_batch == fact["global_batch"], name
        assert applied_learning_rate(config) == pytest.approx(fact["base_lr"], abs=1e-12), name
        assert config.weight_decay_rate == fact["weight_decay"], name
        assert list(config.lr_decay_epochs) == fact["decay_epochs"], name
        assert config.lr_decay_factor == fact["decay_factor"], name
        assert (config.warmup, config.warmup_factor) == (fact["warmup"], fact["warmup_factor"]), name
        checked += 1
    assert checked == 6


def test_torch_s_own_ddp_config_applies_the_default_event_s_rate() -> None:
    config = resolve(["--name", "nvidia", "--config", "ddp_V100x1x8"], {}).config
    assert (config.global_batch, applied_learning_rate(config)) == (1024, 0.08)


def test_the_first_step_has_rate_zero_and_warm_up_ends_at_the_base_rate() -> None:
    config = Config(base_learning_rate=0.1, warmup=10)
    assert learning_rate_at(config, 0, 1) == 0
    assert learning_rate_at(config, 5, 1) == pytest.approx(0.05)
    assert learning_rate_at(config, 10, 1) == 0.1  # the original stayed at 0.09 until the first decay
    assert learning_rate_at(config, 10**6, 1) == 0.1


def test_warm_up_factor_halves_the_depth() -> None:
    config = Config(base_learning_rate=0.1, warmup=10, warmup_factor=1)
    assert learning_rate_at(config, 0, 1) == pytest.approx(0.05)


def test_no_warm_up_starts_at_the_base_rate() -> None:
    assert learning_rate_at(Config(base_learning_rate=0.1, warmup=0), 0, 1) == 0.1


def test_scaled_rates_round_half_to_even_and_never_to_zero() -> None:
    assert applied_learning_rate(Config(learning_rate=1e-4, train_batch_size=1)) == 0.0025
    assert applied_learning_rate(Config(learning_rate=0.00625, train_batch_size=32)) == pytest.approx(0.005)  # 2.5 -> 2


@pytest.mark.parametrize(
    ("step", "epoch", "rate"),
    [
        # 2.92e-3 / 2.5e-3 * 960 / 32 = 35.04, rounded 35: base = 35 * 0.0025 = 0.0875
        (0, 1, 0.0),
        (65, 1, 0.00875),  # a tenth of the 650 warm-up steps
        (325, 3, 0.04375),  # half of them
        (649, 6, 0.0873653846153846),  # 0.0875 * 649 / 650
        (650, 6, 0.0875),
        (5289, 43, 0.0875),  # the last step before the first decay
        (5289, 44, 0.00875),  # the epoch decides, not the step
        (6764, 54, 0.00875),
        (6765, 55, 0.000875),
        (9839, 80, 0.000875),
    ],
)
def test_ten_rates_worked_by_hand(step: int, epoch: int, rate: float) -> None:
    assert learning_rate_at(v100x1x8(120, 8), step, epoch) == pytest.approx(rate, rel=1e-12, abs=0)


def test_decay_takes_the_factor_of_the_config_and_goes_on_in_warm_up() -> None:
    config = Config(base_learning_rate=0.8, warmup=100, lr_decay_epochs=(2, 3), lr_decay_factor=0.25)
    assert learning_rate_at(config, 200, 2) == pytest.approx(0.2, rel=1e-12)
    assert learning_rate_at(config, 200, 3) == pytest.approx(0.05, rel=1e-12)
    assert learning_rate_at(config, 50, 2) == pytest.approx(0.1, rel=1e-12)


def test_a_warm_up_factor_of_two_starts_at_three_quarters() -> None:
    config = Config(base_learning_rate=0.08, warmup=4, warmup_factor=2)
    rates = [learning_rate_at(config, step, 1) for step in range(6)]
    assert rates == pytest.approx([0.06, 0.065, 0.07, 0.075, 0.08, 0.08], rel=1e-12)
