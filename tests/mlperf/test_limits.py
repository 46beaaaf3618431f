"""The rounds' rules: convergence points as the official checker has them, and the closed division's limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.errors import ConfigError
from ssd.mlperf.events import RunFacts
from ssd.mlperf.expectations import Planned, late_runs_needed, plan_text
from ssd.mlperf.limits import (
    BACKBONE_SHA256,
    RESULTS,
    forbidden_in_closed,
    init_limit_ms,
    need_ruleset,
    olympic_mean,
    reference_convergence,
)


@pytest.mark.parametrize(
    ("batch", "mean", "least"),
    [(8, 50, 50), (912, 50, 50), (1024, 50, 50), (1216, 51.875, 51.875), (1280, 52.5, 52.5), (1536, 55, 55)],
)
def test_reference_points_of_1_1_0(batch: int, mean: float, least: float) -> None:
    point = reference_convergence("1.1.0", batch)
    assert point is not None
    assert (point.mean_epochs, point.least_mean_epochs) == pytest.approx((mean, least))


def test_a_point_with_spread_lets_a_submission_be_a_little_faster() -> None:
    point = reference_convergence("1.1.0", 4096)
    assert point is not None
    assert point.mean_epochs == pytest.approx(87.0)
    assert point.least_mean_epochs == pytest.approx(84.5, abs=0.02)


def test_a_batch_beyond_the_reference_has_no_point() -> None:
    assert reference_convergence("1.1.0", 4097) is None


def test_1_0_0_has_points_of_its_own_and_0_7_0_has_none() -> None:
    point = reference_convergence("1.0.0", 1536)
    assert point is not None
    assert point.mean_epochs == pytest.approx(56.17, abs=0.01)
    assert "interpolated" in point.origin
    with pytest.raises(ConfigError, match=r"0\.7\.0"):
        reference_convergence("0.7.0", 1024)


def test_later_rulesets_are_refused() -> None:
    assert need_ruleset("1.1.0") == "1.1.0"
    with pytest.raises(ConfigError, match="SSD-ResNet34 exists in"):
        need_ruleset("6.1.0")


def test_a_score_is_made_of_five_results() -> None:
    assert RESULTS == 5


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=9), st.randoms(use_true_random=False))
def test_the_olympic_mean_lies_within_its_values_whatever_their_order(values: list[float], random) -> None:
    mean = olympic_mean(values)
    shuffled = values[:]
    random.shuffle(shuffled)
    assert olympic_mean(shuffled) == mean
    assert sorted(values)[1] <= mean * (1 + 1e-12) + 1e-300
    assert mean <= sorted(values)[-2] * (1 + 1e-12) + 1e-300


def test_the_olympic_mean_needs_three_values() -> None:
    assert olympic_mean([1, 9, 2]) == 2
    with pytest.raises(ValueError, match="three values or more, not 2"):
        olympic_mean([1, 2])


def test_published_hyperparameters_are_allowed(facts: RunFacts) -> None:
    assert forbidden_in_closed(facts) == []
    for epochs in ((40, 50), (48, 60), (52, 65), (60, 75), (68, 85)):
        assert forbidden_in_closed(replace(facts, decay_epochs=epochs)) == []


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("lr_decay_epochs = [34, 45]", {"decay_epochs": (34, 45)}),
        ("lr_decay_epochs = [44, 50]", {"decay_epochs": (44, 50)}),
        ("lr_decay_epochs = [40]", {"decay_epochs": (40,)}),
        ("lr_decay_factor = 0.2", {"decay_factor": 0.2}),
        ("warmup = 0", {"warmup_steps": 0}),
        ("warmup_factor = 0.5", {"warmup_factor": 0.5}),
        ("global batch = 5000", {"global_batch": 5000}),
        ("evaluation images = 50", {"eval_samples": 50}),
        ("training images = 400", {"train_samples": 400}),
        ("width = 0.25", {"width": 0.25}),
        ("momentum = 0.8", {"momentum": 0.8}),
        ("threshold = 0.2", {"target_map": 0.2}),
        ("SHA-256 of backbone_path = ''", {"backbone_sha256": ""}),
    ],
)
def test_what_the_closed_division_forbids_is_named_with_its_value(facts: RunFacts, key: str, change: dict) -> None:
    found = forbidden_in_closed(replace(facts, **change))
    assert len(found) == 1
    assert found[0].startswith(key + ": ")


def test_a_resumed_run_is_forbidden(facts: RunFacts) -> None:
    assert any("without a break" in line for line in forbidden_in_closed(facts, resumed=True))


def test_the_backbone_is_the_references() -> None:
    assert BACKBONE_SHA256.startswith("333f7ec4")


@pytest.mark.parametrize(
    ("least", "needed"),
    [(51.875, (3, 55)), (52.5, (3, 55)), (50.0, (4, 50)), (53.5, (4, 55)), (3.0, None), (81.0, None)],
)
def test_how_many_runs_must_be_late(least: float, needed: tuple[int, int] | None) -> None:
    assert late_runs_needed(range(5, 81, 5), least) == needed


def planned(facts: RunFacts, **config: object) -> Planned:
    return Planned(facts, {"epochs": 80, "eval_interval": 5, "eval_epochs": ()} | config)


def test_the_plan_says_what_the_rules_will_ask(facts: RunFacts) -> None:
    text = plan_text(planned(replace(facts, global_batch=1216)), "1.1.0", 5, "at most 1.09 hours")
    assert "ruleset 1.1.0, closed division" in text
    assert "51.88 epochs (interpolated between batches 1024 and 1536)" in text
    assert "3 of 5 runs must converge at epoch 55 or later" in text
    assert "How long: at most 1.09 hours" in text
    assert "forbids none" in text
    assert "No current MLPerf round" in text


def test_the_plan_of_an_open_run_lists_what_closed_would_forbid(facts: RunFacts) -> None:
    text = plan_text(planned(replace(facts, division="open", width=0.25)), "1.1.0", 5, "unknown")
    assert "would forbid" in text
    assert "width = 0.25" in text
    assert "not held to it" in text
    assert "unknown" in text


def test_a_plan_without_a_reference_point_says_why(facts: RunFacts) -> None:
    old = plan_text(planned(facts), "0.7.0", 1, "an hour").splitlines()
    assert old[0].startswith("1 run for NVIDIA, ")
    assert old[2] == "Ruleset 0.7.0 has no reference convergence points."
    large = plan_text(planned(replace(facts, global_batch=5000)), "1.1.0", 5, "an hour").splitlines()
    assert large[0].startswith("5 runs for NVIDIA, ")
    assert large[2].startswith("Global batch 5000: beyond the reference's; ")
    assert large[4] == "The closed division forbids:"


def test_the_last_epoch_is_evaluated_whatever_the_interval(facts: RunFacts) -> None:
    assert planned(facts, epochs=12).eval_epochs == (5, 10, 12)
    assert planned(facts, epochs=12, eval_epochs=(3, 40)).eval_epochs == (3, 12)


def test_set_up_may_take_20_minutes_in_round_0_7_and_30_later() -> None:
    assert [init_limit_ms(ruleset) for ruleset in ("0.7.0", "1.0.0", "1.1.0")] == [1_200_000, 1_800_000, 1_800_000]


def test_decoded_images_may_be_kept_on_a_disk_and_not_in_memory(facts: RunFacts) -> None:
    assert forbidden_in_closed(replace(facts, decoded_cache="ext4")) == []
    (line,) = forbidden_in_closed(replace(facts, decoded_cache="tmpfs"))
    assert line.startswith("file system of decoded_cache = 'tmpfs': data starts on durable storage")
