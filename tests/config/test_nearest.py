"""What is suggested for a mistyped word, and that nothing is where nothing is near."""

from __future__ import annotations

import pytest

from ssd.config import Config
from ssd.config.nearest import did_you_mean
from ssd.verbs.table import VERBS

KEYS = [f"--{key}" for key in Config.model_fields]


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("--momentm", ["--momentum"]),
        ("--widht", ["--width"]),
        ("--Train-Batchsize", ["--train_batch_size"]),
        ("--treshold", ["--threshold"]),
        ("--sead", ["--seed"]),
        ("--workers", ["--num_workers"]),
        ("--batch_size", ["--train_batch_size", "--eval_batch_size"]),
        ("--images", ["--corrupt_images", "--eval_images"]),
        ("--nproc", ["--nproc_per_node"]),
    ],
)
def test_a_slip_or_a_part_of_a_name(word: str, names: list[str]) -> None:
    said = did_you_mean(word, KEYS)
    assert said.startswith(" Did you mean ")
    assert sorted(said.split("'")[1::2]) == sorted(names)


@pytest.mark.parametrize(
    "word", ["--foo", "--verbos", "--score", "--tset", "--amount", "--dry-run", "--wd", "--x", "--"]
)
def test_nothing_where_nothing_is_near(word: str) -> None:
    assert did_you_mean(word, KEYS) == ""


@pytest.mark.parametrize(
    ("word", "verb"), [("trian", "train"), ("eval", "evaluate"), ("vendor", "vendors"), ("cofnig", "config")]
)
def test_verbs(word: str, verb: str) -> None:
    assert did_you_mean(word, VERBS) == f" Did you mean '{verb}'?"


@pytest.mark.parametrize(
    ("word", "known", "named"),
    [
        ("log", ["log_freq", "momentum"], ["log_freq"]),
        ("lo", ["lo_freq", "momentum"], []),
        ("mom", ["log_freq", "momentum"], ["momentum"]),
        ("mo", ["log_freq", "momentum"], []),
        ("rate", ["a_rate", "b_rate", "c_rate"], ["a_rate", "b_rate", "c_rate"]),
        ("rate", ["a_rate", "b_rate", "c_rate", "d_rate"], []),
    ],
)
def test_a_part_has_three_letters_and_is_that_of_three_names_at_most(
    word: str, known: list[str], named: list[str]
) -> None:
    assert did_you_mean(word, known).split("'")[1::2] == named


def test_letters_that_change_places_in_a_short_word() -> None:
    assert did_you_mean("--cvs", ["--csv", "--json"]) == " Did you mean '--csv'?"
