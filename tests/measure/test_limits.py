"""What figures mean together, on numbers that can be checked by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from server import SERVER

from ssd.measure.copying import IMAGE_BYTES
from ssd.measure.limits import cores_for, fallen, host_rates, workers_for


def test_the_part_that_allows_the_fewest_images_limits_a_host() -> None:
    rates = host_rates(SERVER)
    # Eight devices take 100 images each in 0.1 s, and wait 0.1 s for each other.
    assert rates == pytest.approx(
        {"training steps": 4000, "decoding": 5000, "reading files": 9000, "copies to the device": 80_000}
    )
    assert list(rates) == ["training steps", "decoding", "reading files", "copies to the device"]
    assert next(iter(host_rates(replace(SERVER, all_reduce_s=None)))) == "decoding"


def test_on_a_cpu_steps_and_decoding_take_turns() -> None:
    found = replace(SERVER, devices=1, shares_cores=True, copy=None, all_reduce_s=None, step=50.0, decode_all=200.0)
    rates = host_rates(found)
    assert rates == pytest.approx({"training steps and decoding, on the same cores": 40, "reading files": 9000})


def test_cores_and_threads_that_feed_a_device() -> None:
    assert [cores_for(rate, 200.0) for rate in (1, 200, 201, 2500)] == [1, 1, 2, 13]
    assert workers_for(SERVER) == 4, "it needs six, and has a share of four cores"
    assert workers_for(replace(SERVER, devices=1)) == 6
    assert workers_for(replace(SERVER, devices=64)) == 1


def test_a_part_below_95_percent_of_the_reference_is_named() -> None:
    reference = {"step": 100.0, "decode_core": 200.0, "copy": None, "read": 10.0, "all_reduce": 5.0}
    now = {"step": 95.0, "decode_core": 180.0, "copy": 3.0, "read": 5.0, "all_reduce": None}
    assert fallen(now, reference) == [("read", 0.5), ("decode_core", 0.9)]


def test_the_figures_that_are_compared() -> None:
    assert SERVER.parts() == {
        "decode_core": 200.0,
        "decode_all": 5000.0,
        "read": 9000.0,
        "copy": 10_000.0 * IMAGE_BYTES,
        "step": 1000.0,
        "data_step": 600.0,
        "evaluation": 2000.0,
        "all_reduce": 1e9,
    }
