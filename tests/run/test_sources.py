"""What a run can know of its evaluation images before it trains is said before it trains."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.data.synthetic import CycledLoader, SyntheticLoader
from ssd.errors import DataError
from ssd.prepare.drawn import draw_set
from ssd.run import sources
from ssd.run.sources import open_eval_source, open_sources

CPU = Abilities(torch.device("cpu"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    draw_set(tmp_path / "mine", train=4, val=3, seed=1)
    return Config(data_dir=tmp_path / "mine", cache_dir=tmp_path / "cache", num_classes=4, num_workers=1)


class Unconnected(Ranks):
    """One of several processes, the others of which are not there to be waited for."""

    def wait(self) -> None:
        """Go on."""


def test_a_missing_evaluation_image_is_named_at_once(config: Config) -> None:
    assert config.data_dir is not None
    lost = min((config.data_dir / "val2017").iterdir())
    lost.unlink()
    with pytest.raises(DataError, match=rf"1 of 3 evaluation images are missing, {lost.name} the first"):
        open_sources(config, Ranks(), 0, CPU)


def test_each_process_looks_for_its_share(config: Config) -> None:
    assert config.data_dir is not None
    min((config.data_dir / "val2017").iterdir()).unlink()
    failed = 0
    for rank in range(3):
        try:
            open_eval_source(config, Unconnected(rank=rank, world_size=3), CPU)
        except DataError:
            failed += 1
    assert failed == 1


@pytest.mark.parametrize("which", ["with_boxes", "all"])
def test_evaluation_without_a_box_is_refused(config: Config, which: str) -> None:
    assert config.data_dir is not None
    path = config.data_dir / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    with pytest.raises(DataError, match="nothing to evaluate on"):
        open_eval_source(config.model_copy(update={"eval_images": which}), Ranks(), CPU)


def test_an_evaluation_image_of_another_kind_is_named_with_a_remedy_that_applies(config: Config) -> None:
    assert config.data_dir is not None
    image = min((config.data_dir / "val2017").iterdir())
    Image.open(image).save(image, format="PNG")
    with pytest.raises(DataError, match=rf"1 of 3 .* cannot be evaluated, {image.name} the first: a PNG") as caught:
        open_eval_source(config, Ranks(), CPU)
    assert "corrupt_images" not in str(caught.value)


def test_crowds_alone_are_refused_before_the_run(config: Config) -> None:
    assert config.data_dir is not None
    path = config.data_dir / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has iscrowd 1, and the metric counts none"):
        open_sources(config, Ranks(), 0, CPU)


def test_local_rank_0_reads_first_and_the_others_after_it(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It builds the cache of its host; where all read at once, all would build it."""
    told: list[str] = []
    monkeypatch.setattr(
        sources, "load_index", lambda path, cache: told.append("read") or SimpleNamespace(clipped=lambda: np.zeros(1))
    )

    class Told(Ranks):
        def barrier(self) -> None:
            told.append("wait")

    for local_rank, order in ((0, ["read", "wait"]), (1, ["wait", "read"])):
        told.clear()
        sources._index(config, Told(rank=local_rank, world_size=2, local_rank=local_rank), "val2017")
        assert told == order


@pytest.mark.parametrize(
    ("free", "available", "processes", "expected"),
    [(None, None, 1, None), (1000, None, 1, 1000), (1000, 5000, 2, 1000)],
)
def test_memory_that_is_left_for_images(
    free: int | None, available: int | None, processes: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is free of a device. The host's is shared by its processes, without what the network takes (300)."""
    monkeypatch.setattr(sources, "required_bytes", lambda config: 300)
    monkeypatch.setattr(sources, "available_bytes", lambda: available)
    config = Config(nproc_per_node=processes)
    on_device = SimpleNamespace(is_host=False, free_bytes=free)
    assert sources._memory_left(config, on_device) == expected
    on_host = SimpleNamespace(is_host=True, free_bytes=None)
    assert sources._memory_left(config, on_host) == (None if available is None else (5000 - 300) // 2)


def test_a_synthetic_run_holds_no_more_images_than_it_repeats() -> None:
    keys = {"data_backend": "synthetic", "synthetic_samples": 50, "num_classes": 4, "pretrained": False}
    keys |= {"train_batch_size": 2, "nproc_per_node": 2}
    few, held = (Config(**keys, synthetic_batches=batches) for batches in (0, 3))
    assert [len(sources._synthetic(one, "train2017")[0]) for one in (few, held)] == [50, 12]
    one, other = (sources._synthetic(held, split)[0].sha256 for split in ("train2017", "val2017"))
    assert one != other
    loader, evaluation = open_sources(held, Ranks(world_size=2), 5, CPU)
    assert isinstance(loader, CycledLoader)
    assert loader.steps_per_epoch == 13
    assert evaluation.categories == [(1, "colour 1"), (2, "colour 2"), (3, "colour 3")]
    loader, evaluation = open_sources(few, Ranks(rank=1, world_size=2), 5, CPU)
    assert isinstance(loader, SyntheticLoader)
    sampler = loader.sampler
    assert (sampler.batch, sampler.seed, sampler.rank, sampler.world_size, sampler.accumulation) == (2, 5, 1, 2, 1)
    assert evaluation.rows.tolist() == list(range(50))
    assert [row for batch in evaluation.loader for row in batch.rows] == list(range(1, 50, 2))
