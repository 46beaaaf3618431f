"""What a run can know of its evaluation images before it trains is said before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.errors import DataError
from ssd.prepare.drawn import draw_set
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
