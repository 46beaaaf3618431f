"""Epochs that are kept of the demo: they hold for the demo as it is, and for nothing else."""

from __future__ import annotations

import csv

import pytest

from ssd.config import resolve
from ssd.config.folders import BASE_CONFIGS
from ssd.plan.observed import learning_of, observed_epochs, span_of

DEMO = resolve(["--name", "cpu", "--config", "demo"], {}).config


def kept() -> list[dict[str, str]]:
    with (BASE_CONFIGS / "demo_epochs.csv").open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def test_the_demos_epochs_are_those_of_the_demo_of_today() -> None:
    """A change of the demo's hyper-parameters makes what was observed void: run bench/plan.py anew."""
    assert {line["learning"] for line in kept()} == {learning_of(DEMO)}
    assert list(observed_epochs(DEMO)) == sorted(int(line["epochs"]) for line in kept())
    seeds = [line["seed"] for line in kept()]
    assert len({(line["vectors"], line["seed"]) for line in kept()}) == len(seeds)
    for seed in set(seeds):  # on whichever CPU it trained
        assert len(observed_epochs(DEMO, without=int(seed))) == len(seeds) - seeds.count(seed)


@pytest.mark.parametrize(
    "change",
    [{"train_batch_size": 16}, {"base_learning_rate": 0.02}, {"width": 0.5}, {"data_dir": None}, {"max_steps": 5}],
)
def test_another_way_of_learning_has_no_observed_epochs(change: dict) -> None:
    assert observed_epochs(DEMO.model_copy(update=change)) == ()


@pytest.mark.parametrize("change", [{"num_workers": 1}, {"precision": "bf16"}, {"submitter": "me"}])
def test_what_changes_nothing_about_learning(change: dict) -> None:
    assert observed_epochs(DEMO.model_copy(update=change)) == observed_epochs(DEMO)


def test_a_config_without_observed_runs() -> None:
    assert observed_epochs(resolve(["--config", "smoke"], {}).config) == ()
    assert observed_epochs(DEMO.model_copy(update={"config": "../config/demo"})) == ()


def test_eight_of_ten_lie_between_the_ends() -> None:
    assert span_of([3, 3, 4, 4, 4, 4, 5, 5, 6, 8]) == (3, 4, 6)
    assert span_of([4]) == (4, 4, 4)
