"""What a result log says of the run: the version that trained, and the scheme by which it drew."""

from __future__ import annotations

import ssd
from ssd.config import Config
from ssd.counts import DRAWS
from ssd.data.sampler import Sampler
from ssd.data.synthetic import SyntheticLoader, make_synthetic
from ssd.run.facts import run_facts
from ssd.run.step_record import hash_of_draws

DRAWN = {1: ((1, 0, 6, 7), ["436c7626f4f8dad7", "357999ce6a096b49", "24d12f2c5809e8d5", "76f1fc4193345caa"])}
"""For each scheme of draws, rows and hashes of the first batch of a fixed set, seed and epoch."""


def test_version_and_draws_are_logged() -> None:
    records = run_facts(Config(), 1, 8, 8).records()
    assert (records["ssd_version"], records["ssd_draws"]) == (ssd.__version__, DRAWS)


def test_another_draw_is_another_scheme() -> None:
    """Where this fails, what is drawn from a seed has changed: raise ssd.counts.DRAWS and add its hashes here."""
    loader = SyntheticLoader(*make_synthetic(8, 4, seed=0), Sampler(8, 4, seed=7))
    batch = next(loader.epoch(2))
    assert (batch.rows, [f"{one:016x}" for one in hash_of_draws(batch).tolist()]) == DRAWN[DRAWS]
