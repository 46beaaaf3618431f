"""Roles of keys: each has one, and the lists derived from them say what the rules of a run say."""

from __future__ import annotations

from typing import get_args

import pytest

from ssd.config import Config
from ssd.config.keys import COMPUTE, PACE, PLACE, RULE, Role, extra_of
from ssd.config.roles import CLOSED_VALUES, COMPUTE_KEYS, PLACE_KEYS, VARYING_KEYS, resumable_keys

SETTLED = {
    PLACE: {
        *(
            "node_rank",
            "master_addr",
            "master_port",
            "output",
            "resume",
            "restart",
            "max_restarts",
            "resume_from",
            "seed",
        ),
        *("data_dir", "cache_dir", "decoded_cache", "backbone_path"),
    },
    PACE: {
        *("num_workers", "prefetch", "log_freq", "telemetry_interval", "numa_binding", "collective_timeout"),
        "step_timeout",
        *("checkpoint_interval", "checkpoint_minutes", "keep_best", "record_norms", "tensorboard"),
    },
}


def role_of(key: str) -> Role:
    return extra_of(Config.model_fields[key])["role"]


def test_every_key_has_a_role() -> None:
    assert set(get_args(Role)) == {PLACE, PACE, COMPUTE, RULE}
    assert [key for key in Config.model_fields if role_of(key) not in get_args(Role)] == []


@pytest.mark.parametrize("role", [PLACE, PACE])
def test_no_number_of_a_run_depends_on_place_and_pace(role: Role) -> None:
    assert {key for key in Config.model_fields if role_of(key) == role} == SETTLED[role]


def test_what_runs_of_one_result_may_differ_in() -> None:
    assert SETTLED[PLACE] | SETTLED[PACE] == VARYING_KEYS
    assert SETTLED[PLACE] == PLACE_KEYS


def test_a_resumed_run_may_also_go_on_for_longer() -> None:
    assert VARYING_KEYS | {"epochs", "max_steps"} == resumable_keys(Config)


@pytest.mark.parametrize("key", ["precision", "cuda_graph", "bn_group", "loss_op", "data_backend", "device", "amp"])
def test_how_a_machine_computes_is_said_at_the_start_and_is_fixed(key: str) -> None:
    assert key in COMPUTE_KEYS
    assert key not in resumable_keys(Config)


@pytest.mark.parametrize("key", ["train_batch_size", "learning_rate", "warmup", "threshold", "ruleset", "submitter"])
def test_what_a_run_is_stays_fixed(key: str) -> None:
    assert role_of(key) == RULE
    assert key not in resumable_keys(Config)


def test_what_the_closed_division_requires() -> None:
    assert CLOSED_VALUES == {
        "width": 1.0,
        "num_classes": 81,
        "pretrained": True,
        "threshold": 0.23,
        "nms_valid_thresh": 0.05,
        "momentum": 0.9,
        "max_steps": None,
        "resume": False,
        "corrupt_images": "stop",
    }
