"""The DALI loader against the threads': the same draws, nearly the same pixels, the same stand-ins.

DALI is no requirement of the project: where its wheel is not installed only its absence is tested.
"""

from __future__ import annotations

import builtins
import gc
import threading
import warnings

import pytest
import torch
from PIL import Image

from ssd.data import dali as dali_module
from ssd.data.annotations import parse_annotations
from ssd.data.dali import DaliLoader
from ssd.data.decode import load_image
from ssd.data.loader import Reading, ThreadLoader, train_rows
from ssd.data.sampler import Sampler
from ssd.errors import ConfigError, DataError, MachineError

DRAWN = ("boxes", "labels", "flip", "factors", "order")


@pytest.fixture
def installed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed (nvidia-dali-cuda120)")


def loaders(
    folder, split="train2017", ours=None, batch_size=4, seed=9, rank=0, world_size=1, accumulation=1, **reading
):
    """A DALI loader and a thread loader of the same arguments."""
    index = parse_annotations(folder / f"annotations/instances_{split}.json")
    sampler = Sampler(len(train_rows(index)), batch_size, seed, rank, world_size, accumulation)
    how = Reading(folder / split, **({"num_workers": 2} | reading))
    return DaliLoader(index, sampler, how, **(ours or {})), ThreadLoader(index, sampler, how)


def equal_draws(one, two):
    return one.rows == two.rows and all(torch.equal(getattr(one, f), getattr(two, f)) for f in DRAWN)


def mean_difference(one, two):
    """(B,) float32: mean difference of each image's pixels in grey levels."""
    return (one.images.int() - two.images.int()).abs().float().mean((1, 2, 3))


def test_without_the_library_the_key_and_the_remedy_are_named(coco, monkeypatch):
    real = builtins.__import__

    def no_dali(name, *arguments):
        if name.startswith("nvidia.dali"):
            raise ImportError("No module named 'nvidia.dali'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", no_dali)
    with pytest.raises(MachineError, match=r'data_backend = "dali".*install.*data_backend = "threads"'):
        loaders(coco)


def test_nvjpeg_needs_a_cuda_device(coco):
    with pytest.raises(ConfigError, match="use_nvjpeg"):
        loaders(coco, ours={"use_nvjpeg": True})


@pytest.mark.usefixtures("installed")
class TestInstalled:
    def test_a_dali_that_cannot_decode_here_is_named(self, coco, monkeypatch):
        def fail(pipeline):
            raise RuntimeError("no decoder")

        monkeypatch.setattr("nvidia.dali.pipeline.Pipeline.build", fail)
        with pytest.raises(MachineError, match=r'\(use_nvjpeg = false\): DALI .*"threads"\. It says: no decoder$'):
            next(iter(loaders(coco)[0].epoch(1)))

    def test_draws_are_the_threads_and_pixels_nearly(self, coco):
        """All epochs whole, in one pipeline; CMYK files, too."""
        ours, theirs = loaders(coco, accumulation=2, batch_size=2)
        assert (ours.samples, ours.steps_per_epoch, ours.repeats) == (13, 4, 3)
        pipelines = set()
        for epoch in (1, 2):
            batches = list(zip(ours.epoch(epoch), theirs.epoch(epoch), strict=True))
            assert len(batches) == 8
            for one, two in batches:
                assert equal_draws(one, two)
                assert (one.images.shape, one.images.dtype) == ((2, 300, 300, 3), torch.uint8)
                assert mean_difference(one, two).max() < 2
            pipelines.add(id(ours._pipeline))
        assert len(pipelines) == 1

    def test_pixels_of_real_images_are_nearly_the_threads(self, tiny_coco):
        """Mean difference 0.2 grey levels: DALI rounds elsewhere. A shift by one pixel moves 2 and more."""
        ours, theirs = loaders(tiny_coco, batch_size=10, seed=3)
        differences = torch.cat([mean_difference(*pair) for pair in zip(ours.epoch(1), theirs.epoch(1), strict=True)])
        assert len(differences) == 50
        assert differences.mean() < 0.4
        assert differences.max() < 1.5

    @pytest.mark.parametrize("prefetch", [1, 3])
    def test_an_epoch_is_resumed_and_left_in_its_middle(self, coco, prefetch):
        ours, theirs = loaders(coco, prefetch=prefetch)
        batches = ours.epoch(1)
        next(batches)
        batches.close()
        rest = list(ours.epoch(2, first_step=2))
        assert len(rest) == 2
        assert all(equal_draws(*pair) for pair in zip(rest, theirs.epoch(2, first_step=2), strict=True))
        assert list(ours.epoch(2, first_step=4)) == []

    def test_two_ranks_take_what_one_would(self, coco):
        whole, _ = loaders(coco)
        halves = [loaders(coco, batch_size=2, rank=rank, world_size=2)[0] for rank in (0, 1)]
        for both, *parts in zip(whole.epoch(1), *(half.epoch(1) for half in halves), strict=True):
            assert both.rows == parts[0].rows + parts[1].rows
            assert torch.equal(both.images, torch.cat([part.images for part in parts]))

    def test_a_batch_is_its_own_memory(self, coco):
        ours, _ = loaders(coco, prefetch=1)
        batches = list(ours.epoch(1))
        for kept, again in zip(batches, ours.epoch(1), strict=True):
            assert torch.equal(kept.images, again.images)

    def test_exif_does_not_turn_an_image(self, coco):
        """COCO's boxes are drawn on pixels as they are stored."""
        path = coco / "train2017/000000000100.jpg"
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.open(path).save(path, quality=95, exif=exif)
        self.test_draws_are_the_threads_and_pixels_nearly(coco)

    @pytest.mark.parametrize("kind", ["truncated", "empty", "absent", "text", "other size"])
    @pytest.mark.parametrize("policy", ["stop", "skip"])
    def test_a_corrupt_image_is_treated_as_by_the_threads(self, coco, kind, policy):
        damage(coco / "train2017/000000000104.jpg", kind)
        ours, theirs = loaders(coco, corrupt_images=policy)
        if policy == "stop":
            with pytest.raises(DataError, match=r"000000000104\.jpg \(image 104\)") as by_dali:
                list(ours.epoch(1))
            with pytest.raises(DataError) as by_threads:
                list(theirs.epoch(1))
            assert str(by_dali.value) == str(by_threads.value)
            return
        for epoch in (1, 2):
            assert all(equal_draws(*pair) for pair in zip(ours.epoch(epoch), theirs.epoch(epoch), strict=True))
        assert ours.skipped == theirs.skipped
        assert len(ours.skipped) >= 2

    def test_the_consumer_writes_what_is_broken_when_the_workers_have_ended(self, coco):
        """And DALI asks for a batch in the consumer's thread, which therefore owns the batches under way."""
        asked, written = set(), []

        class Source(dali_module._Source):
            def __call__(self):
                asked.add(threading.current_thread())
                return super().__call__()

        class Broken(dict):
            def __setitem__(self, row, reason):
                written.append((threading.current_thread(), decoders()))
                super().__setitem__(row, reason)

        damage(coco / "train2017/000000000104.jpg", "truncated")
        ours, theirs = loaders(coco, corrupt_images="skip", num_workers=4, prefetch=3)
        ours._source, ours._broken = Source(), Broken()
        by_dali = list(ours.epoch(1))
        assert all(equal_draws(*pair) for pair in zip(by_dali, theirs.epoch(1), strict=True))
        assert written == [(threading.main_thread(), [])]
        assert asked == {threading.main_thread()}

    def test_a_failure_of_dali_alone_is_not_blamed_on_the_data(self, coco, monkeypatch):
        damage(coco / "train2017/000000000104.jpg", "truncated")
        ours, _ = loaders(coco, corrupt_images="skip")
        monkeypatch.setattr(dali_module, "load_image", lambda *arguments: None)
        with pytest.raises(MachineError, match=r'DALI failed on images.*104.*data_backend = "threads"'):
            list(ours.epoch(1))

    def test_no_thread_reads_on_after_an_epoch(self, coco):
        ours, _ = loaders(coco)
        batches = ours.epoch(1)
        next(batches)
        batches.close()
        list(ours.epoch(1))
        gc.collect()
        assert decoders() == []


def decoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ssd-decode")]


def damage(path, kind):
    content = path.read_bytes()
    if kind == "absent":
        path.unlink()
    elif kind == "other size":
        path.write_bytes((path.parent / "000000000103.jpg").read_bytes())
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"not a picture"}[kind])


def test_whole_images_are_the_measure(tiny_coco):
    """The measure of the tests above tells a shift by one pixel: here from 0 to well above their limits."""
    index = parse_annotations(tiny_coco / "annotations/instances_train2017.json")
    images = torch.empty(8, 300, 300, 3, dtype=torch.uint8)
    for row in range(8):
        path = tiny_coco / "train2017" / str(index.file_names[row])
        load_image(path, 0, tuple(index.sizes[row].tolist()), images[row])
    shifted = (images.int() - images.roll(1, 2).int()).abs().float().mean((1, 2, 3))
    assert shifted.min() > 1.5
