"""Which runs are of one result: their configs may differ in place and pace, and in nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssd.config import Config
from ssd.config.roles import VARYING_KEYS
from ssd.mlperf.runs import RecordedRun, config_fingerprint, difference

CONFIG = Config().model_dump(mode="json")


def recorded(**values: Any) -> RecordedRun:
    config = CONFIG | values
    return RecordedRun(
        folder=Path("run"), log=None, config=config, origins=dict.fromkeys(config, "default"), summary={}, system={}
    )


def another(key: str) -> Any:
    """A value that the key does not have."""
    return "other" if CONFIG[key] != "other" else "another"


@pytest.mark.parametrize("key", sorted(VARYING_KEYS))
def test_place_and_pace_make_no_difference(key: str) -> None:
    assert config_fingerprint(CONFIG | {key: another(key)}) == config_fingerprint(CONFIG)
    assert difference(recorded(**{key: another(key)}), recorded()) is None


@pytest.mark.parametrize("key", sorted(set(CONFIG) - VARYING_KEYS))
def test_every_other_key_does_and_is_named(key: str) -> None:
    assert config_fingerprint(CONFIG | {key: another(key)}) != config_fingerprint(CONFIG)
    said = difference(recorded(**{key: another(key)}), recorded())
    assert said is not None
    assert f": {key} differ" in said


@pytest.mark.parametrize(
    "key", ["num_workers", "prefetch", "log_freq", "telemetry_interval", "numa_binding", "collective_timeout"]
)
def test_the_pace_of_the_host_is_free(key: str) -> None:
    assert key in VARYING_KEYS
