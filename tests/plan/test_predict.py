"""A prediction by hand: its seconds, its range, what is on paper, and how `check` and `campaign` say it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ssd.config import resolve
from ssd.model import build_model
from ssd.plan.constants import FILE, fitted_constants, fitted_overhead, refit, stated
from ssd.plan.epochs import evaluations_until
from ssd.plan.how_long import UNKNOWN, how_long, source_here
from ssd.plan.measured import Measured, Timed, kept_file, machine_of, write_measured
from ssd.plan.model import fit
from ssd.plan.overhead import fit_overhead
from ssd.plan.predict import predict, run_seconds
from ssd.plan.rows import OTHERS, describe_device, read_rows
from ssd.plan.search import cheapest
from ssd.plan.simulate import Machine, all_reduce_ms, slowest_of
from ssd.plan.sources import NO_EVALUATION, by_measured, by_published, known_rows, step_range
from ssd.report.mfu import GFLOP_PER_IMAGE
from ssd.vendor import load_vendor

DEMO = ["--name", "cpu", "--config", "demo"]
TWO = Measured("measured here", 1, 1, (Timed(8, 210.0, 0.1), Timed(4, 110.0)), 400, 1.5, 6.0, (0.1, 1.9), 5)
ONE = Measured("a run", 1, 1, (Timed(8, 200.0),), 400, 1.5)


@pytest.fixture(scope="module")
def rows():
    return known_rows()


@pytest.fixture(scope="module")
def a100(rows):
    return by_published(rows, describe_device("A100-SXM4-80GB (400W)"))


def nvidia(**keys):
    return resolve(["--name", "nvidia", "--config", "A100x1x8"]).config.model_copy(update=keys)


def test_the_demo_by_hand(rows) -> None:
    """Batches 8 and 4 take 210 and 110 ms: 10 ms and 25 an image. Five epochs of 50 steps, five evaluations of 2 s."""
    source = by_measured([TWO], rows)
    config = resolve(DEMO).config
    found = predict(config, source, 1)
    assert (found.launch_ms, found.arithmetic_ms, found.step_ms) == pytest.approx((10, 200, 210))
    assert run_seconds(config, source, 1, 5, 210) == pytest.approx(5 * 50 * 0.210 + 5 * 2 + 1.5)
    assert run_seconds(config, source, 1, 8, 210) == pytest.approx(8 * 50 * 0.210 + 7 * 2 + 1.5)
    assert found.minutes[1] == pytest.approx((5 * 50 * 0.210 + 5 * 2 + 1.5) / 60)
    assert source.error == 0.1, "the spread of the logging intervals, where it is larger than 5%"
    assert found.set_up_s == 6.0


def test_a_smaller_batch_that_took_longer_is_noise(rows) -> None:
    odd = Measured("here", 1, 1, (Timed(8, 200.0), Timed(4, 90.0)), 400, 0.0)
    source = by_measured([odd], rows)
    assert (source.constants.floor, source.constants.image) == (0.0, 25.0)


def test_one_batch_tells_that_batch_alone(rows) -> None:
    source = by_measured([ONE], rows)
    assert source.figures["evaluation"] == NO_EVALUATION
    assert step_range(source, 8) == (1 / 1.05, 1.05)
    low, high = step_range(source, 4)
    assert low == pytest.approx(1 / 1.05)
    assert high == pytest.approx(1.05 * 150 / 100), "half of the 200 ms may be there without any image"


def test_evaluations_until_an_epoch() -> None:
    listed = (1, 2, 3, 4, 5, 6, 8, 10, 12)
    assert [evaluations_until(epoch, 12, listed, 5) for epoch in (1, 3, 7, 8, 12, 13, 15)] == [1, 3, 6, 7, 9, 10, 11]
    assert [evaluations_until(epoch, 80, (), 5) for epoch in (3, 50, 80, 89)] == [1, 10, 16, 18]


def test_a_config_that_ends_before_the_target_is_said(a100) -> None:
    assert any("larger --epochs" in note for note in predict(nvidia(epochs=20), a100, 8).notes)
    assert predict(nvidia(), a100, 8).notes == ()


def test_a_batch_that_no_row_has_is_said(a100) -> None:
    low, high = a100.batches
    assert (low, high) == (3, 228)
    for batch, said in ((2, True), (3, False), (228, False), (229, True)):
        notes = " ".join(predict(nvidia(train_batch_size=batch), a100, 8).notes)
        assert ("outside the data: batches of 3 to 228 a process" in notes) == said


def test_beyond_the_data_is_said_and_widens_the_range(a100) -> None:
    inside, beyond = predict(nvidia(), a100, 1024), predict(nvidia(), a100, 4096)
    assert not any("beyond the data" in note for note in inside.notes)
    (said,) = [note for note in beyond.notes if "beyond the data" in note]
    assert "1,024 accelerators" in said
    paper = beyond.launch_ms + beyond.arithmetic_ms + beyond.all_reduce_ms + beyond.slowest_ms
    assert beyond.step_span[0] == pytest.approx(min(paper, beyond.step_ms) / (1 + a100.error))
    slow = predict(nvidia(), a100, 4096, Machine(latency_us=1000))
    paper = slow.launch_ms + slow.arithmetic_ms + slow.all_reduce_ms + slow.slowest_ms
    assert paper > 2 * slow.step_ms
    assert slow.step_span == pytest.approx((slow.step_ms / (1 + a100.error), slow.step_ms, paper * (1 + a100.error)))
    fast = predict(nvidia(), a100, 4096, Machine(latency_us=0, link_gbit=1e6, rank_spread=0))
    paper = fast.launch_ms + fast.arithmetic_ms + fast.all_reduce_ms
    assert paper < 0.99 * fast.step_ms
    assert fast.step_span == pytest.approx((paper / (1 + a100.error), fast.step_ms, fast.step_ms * (1 + a100.error)))


def test_a_batch_above_the_reference_has_no_epochs_and_no_penalty(a100) -> None:
    """More processes than its largest batch has images; the penalty is the reference's epochs beside its fewest."""
    most = predict(nvidia(), a100, 8192)
    assert (most.local_batch, most.global_batch) == (1, 8192)
    assert (most.penalty, most.epochs, most.minutes) == (None, None, None)
    assert predict(nvidia(), a100, 8).penalty == 1.0
    assert predict(nvidia(), a100, 4096).penalty > 1.3


def test_what_a_host_must_give(a100) -> None:
    """Cores that decode 8 x 114 images in a step, a host's share of the images read, and the data set's place."""
    eight, two_hosts = predict(nvidia(), a100, 8), predict(nvidia(), a100, 16)
    assert eight.host_cores == math.ceil(8 * 114 / (eight.step_ms / 1000 * stated("loader_per_core")))
    assert (eight.nodes, two_hosts.nodes) == (1, 2)
    assert two_hosts.storage_mb == pytest.approx(two_hosts.images_per_s / 2 * stated("image_mb"))
    assert eight.disk_gb == stated("run_gb") + stated("coco_gb")
    assert predict(nvidia(data_backend="synthetic"), a100, 8).disk_gb == stated("run_gb")
    one = predict(nvidia(), a100, 1)
    assert (one.nodes, one.global_batch) == (1, 114), "a host of which one accelerator is used"
    assert predict(nvidia(gradient_accumulation_steps=2), a100, 8).local_batch == 228
    assert eight.start_s == a100.overhead.start + a100.overhead.first_epoch
    assert eight.most_minutes == pytest.approx(run_seconds(nvidia(), a100, 8, nvidia().epochs, eight.step_ms) / 60)


def test_what_limits_a_step(a100) -> None:
    free, few, slow = (
        predict(nvidia(), a100, 8, one) for one in (None, Machine(host_cores=8), Machine(storage_mb=200))
    )
    assert (free.limit, few.limit, slow.limit) == ("arithmetic", "input", "storage")
    assert few.images_per_s == pytest.approx(8 * stated("loader_per_core"))
    assert slow.images_per_s == pytest.approx(200 / stated("image_mb"))
    assert free.storage_mb == pytest.approx(free.images_per_s * stated("image_mb"))


def test_an_all_reduce_by_alpha_and_beta() -> None:
    machine = Machine(link_gbit=800, latency_us=10)
    megabytes = stated("parameters") * 4 / 1e6
    assert all_reduce_ms(machine, 1.0, 4, 1) == 0
    assert all_reduce_ms(machine, 1.0, 4, 8) == pytest.approx(2 * 3 * 0.01 + 2 * 7 / 8 * megabytes / 100_000 * 1000)
    assert all_reduce_ms(machine, 1.0, 2, 8) < all_reduce_ms(machine, 1.0, 4, 8)


def test_a_measured_spread_of_ranks_replaces_the_assumed_one(rows) -> None:
    source = by_measured([replace(TWO, rank_spread=0.05)], rows)
    config = resolve(DEMO).config
    measured, given = (predict(config, source, 8, one) for one in (None, Machine(rank_spread=0.02)))
    assert measured.slowest_ms == pytest.approx(210 * slowest_of(Machine(rank_spread=0.05), 8))
    assert given.slowest_ms == pytest.approx(210 * slowest_of(Machine(rank_spread=0.02), 8))


def test_the_slowest_of_many_ranks_against_drawn_ones() -> None:
    """The expected maximum of 64 normal numbers, by 20,000 draws: 2.37."""
    drawn = np.random.default_rng(0).standard_normal((20_000, 64)).max(axis=1).mean()
    assert slowest_of(Machine(rank_spread=0.02), 64) == pytest.approx(0.02 * drawn, rel=0.01)
    assert slowest_of(Machine(), 1) == 0
    assert slowest_of(Machine(rank_spread=0.01), 1000) == pytest.approx(0.03241, rel=0.01), "tables say 3.241"


def test_the_file_of_constants_is_what_the_rows_say() -> None:
    """After a change of rows: python -m ssd.plan.constants."""
    own, others = read_rows()[0], read_rows(OTHERS)[0]
    kept = json.loads(FILE.read_text())["fitted"]
    found = refit(own, others)
    assert found.keys() == kept.keys()
    entries = [(found[name], kept[name]) for name in found if name != "chips"]
    entries += [(found["chips"][chip], kept["chips"][chip]) for chip in found["chips"]]
    for now, then in entries:
        assert {**now, **dict.fromkeys(("value", "low", "high"))} == {**then, **dict.fromkeys(("value", "low", "high"))}
        for number in ("value", "low", "high"):
            assert now[number] == pytest.approx(then[number], rel=1e-3, abs=1e-5)
        assert now["low"] <= now["high"]
    assert fitted_constants().image == pytest.approx(fit(own).image, rel=1e-3)
    assert fitted_overhead().work == pytest.approx(fit_overhead(own).work, rel=1e-3)


def test_stated_numbers_are_those_of_the_network() -> None:
    assert stated("image_gflop") == GFLOP_PER_IMAGE
    assert stated("parameters") == sum(one.numel() for one in build_model(seed=0)[0].parameters())
    for entry in json.loads(FILE.read_text())["stated"].values():
        assert entry["source"]
        assert math.isfinite(entry["value"])


def test_the_cheapest_meets_the_time_and_half_of_it_does_not(a100) -> None:
    found = cheapest(nvidia(), a100, 3.0)
    assert found is not None
    assert found.minutes[1] <= 3.0
    for batch in (114, 57, 28, 14, 7):
        fewer = predict(nvidia(train_batch_size=batch), a100, found.accelerators // 2)
        assert fewer.minutes[1] > 3.0
    assert cheapest(nvidia(), a100, 0.01) is None


def test_how_long_is_the_prediction_in_words(rows) -> None:
    config = resolve(DEMO).config
    source = by_measured([TWO], rows)
    seconds = run_seconds(config, source, 1, 12, 210)
    text = how_long(config, source, 2)
    assert f"at most {2 * seconds / 60:.1f} minutes (2 runs, each 600 steps of 210.0 ms)" in text
    low, middle, high = (value * 2 for value in predict(config, source, 1).minutes)
    assert f"about {middle:.1f} minutes ({low:.1f} minutes to {high:.1f} minutes)" in text
    assert "Step: measured here; batch 4, 8 a process." in text
    assert "Set-up comes on top, 6 s a run." in text
    short = how_long(config.model_copy(update={"max_steps": 10}), source)
    assert "1 run, each 10 steps" in short
    assert "about" not in short
    assert how_long(config, None) == UNKNOWN


def test_what_was_kept_here_is_used(tmp_path, run_folder) -> None:
    config = resolve([*DEMO, "--cache_dir", str(tmp_path)]).config
    assert source_here(config, 400) is None
    run = run_folder("a", batch=8, rate=80.0)
    assert source_here(config, 400, run).figures["step"].startswith("the run in")
    kept = kept_file(config, machine_of(load_vendor("cpu").describe_system()))
    write_measured(kept, TWO, {"date": "today"})
    source = source_here(config, 800, run)
    assert source.figures["step"].startswith("measured here (today")
    assert source.images == 800
