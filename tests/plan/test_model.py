"""The step's formula by hand, and a fit that finds the constants that made its rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssd.counts import steps_per_epoch
from ssd.plan.model import Constants, fit, is_fitted
from ssd.plan.overhead import Overhead, fit_overhead, published_evaluations
from ssd.plan.rows import TRAIN_IMAGES, Device, Row, read_rows

SXM = Device("A100", "sxm", 80, 400)
TRUE = Constants(floor=5.0, image=0.6, hosts=0.25, power=0.2, pcie=0.1, small_memory=0.03, older=0.02)


def row(device: Device, batch: int, nodes: int, release: str, step_ms: float = 1.0) -> Row:
    return Row(release, "Acme", "a", device, nodes, 8 * nodes, batch * 8 * nodes, step_ms, 1.0, 0.1, (), ())


def made(constants: Constants) -> list[Row]:
    cards = [SXM, replace(SXM, watts=500), replace(SXM, memory_gb=40), Device("A100", "pcie", 80, 300)]
    shapes = [(114, 1), (32, 1), (24, 8), (3, 128)]
    rows = [row(card, *shape, release) for card in cards for shape in shapes for release in ("1.0", "1.1")]
    return [replace(one, step_ms=constants.step_ms(one.device, one.local_batch, one.nodes, one.round)) for one in rows]


def test_a_step_by_hand() -> None:
    assert TRUE.step_ms(SXM, 100, 1) == pytest.approx(5 + 0.6 * 100)
    assert TRUE.step_ms(SXM, 10, 8) == pytest.approx(5 + 0.6 * 10 + 0.25 * 3)
    half_the_power = TRUE.step_ms(replace(SXM, watts=200), 100, 1)
    assert half_the_power == pytest.approx(5 + 0.6 * 100 * 2**0.2)
    assert TRUE.step_ms(Device("V100", "sxm", 32, 300), 100, 1, slower=2.5) == pytest.approx(5 + 0.6 * 100 * 2.5)


def test_the_parts_add_up_to_the_step() -> None:
    parts = TRUE.parts_ms(SXM, 24, 8)
    assert list(parts) == ["launch", "arithmetic", "communication"]
    assert sum(parts.values()) == TRUE.step_ms(SXM, 24, 8)


def test_the_fit_finds_what_made_the_rows() -> None:
    found = fit(made(TRUE))
    for name in ("floor", "image", "hosts"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.02)
    for name in ("power", "pcie", "small_memory", "older"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), abs=0.01)


def test_an_odd_system_does_not_bend_the_fit() -> None:
    rows = made(TRUE)
    rows[0] = replace(rows[0], step_ms=rows[0].step_ms * 3)
    assert fit(rows).image == pytest.approx(0.6, rel=0.02)


def test_another_chip_takes_its_factor_from_its_own_rows() -> None:
    other = row(Device("V100", "sxm", 32, 300), 100, 1, "0.7", step_ms=5 + 0.6 * 100 * 2.5)
    assert fit([*made(TRUE), other]).step_ms(other.device, 100, 1) == pytest.approx(155, rel=0.01)


def test_too_few_rows_to_fit() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit(made(TRUE)[:7])


def test_which_rows_are_fitted() -> None:
    assert is_fitted(row(SXM, 114, 1, "1.0"))
    assert not is_fitted(row(SXM, 114, 1, "0.7"))
    assert not is_fitted(row(Device("V100"), 114, 1, "1.1"))


def test_overhead_of_a_run() -> None:
    assert [published_evaluations(epoch) for epoch in (51, 56, 78, 1)] == [10, 11, 16, 1]
    overhead = Overhead(start=1.0, first_epoch=0.5, fixed=0.1, work=4.0)
    assert overhead.evaluation_s(8) == pytest.approx(0.6)
    assert overhead.total_s(8, 10) == pytest.approx(7.5)


def test_the_overhead_that_made_the_rows_is_found() -> None:
    rows = []
    for one in made(TRUE):
        epoch_s = steps_per_epoch(TRAIN_IMAGES, one.global_batch) * one.step_ms / 1000
        evaluation = 0.1 + 4.0 / one.accelerators
        rows.append(replace(one, epochs=(50,), seconds=(1.0 + 0.1 + 50 * epoch_s + 10 * evaluation,)))
    found = fit_overhead(rows)
    assert (found.start, found.first_epoch) == (1.0, 0.1)
    assert found.fixed == pytest.approx(0.1, abs=0.01)
    assert found.work == pytest.approx(4.0, rel=0.02)


def test_the_published_constants_are_physical() -> None:
    found = fit(read_rows()[0])
    assert 3 < found.floor < 6
    assert 0.55 < found.image < 0.7
    assert 0.1 < found.hosts < 0.4
