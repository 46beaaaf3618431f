"""The resident loader: the threads' batches from memory, shards that share an epoch out, memory that is asked first."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections import Counter

import numpy as np
import pytest
import torch

from ssd.data import TrainBatch
from ssd.data.annotations import parse_annotations
from ssd.data.draws import draw_sample, draw_samples
from ssd.data.loader import Reading, ThreadLoader, train_rows
from ssd.data.pixel_store import WORKSPACE, PixelStore, _Plane, image_bytes
from ssd.data.resident import ResidentLoader, ShardSampler, shard_bytes
from ssd.data.sampler import Sampler
from ssd.errors import ConfigError, DataError, MachineError
from ssd.ops import crop

CPU = torch.device("cpu")
PLENTY = 2**40
DRAWN = ("boxes", "labels", "flip", "factors", "order")


def train_index(coco):
    return parse_annotations(coco / "annotations/instances_train2017.json")


def sampler_of(kind, index, batch_size=4, seed=9, rank=0, world_size=1, accumulation=1):
    return kind(len(train_rows(index)), batch_size, seed, rank, world_size, accumulation)


def resident(coco, device=CPU, storage="rgb", available_bytes=None, corrupt_images="stop", num_workers=2, **sampler):
    index = train_index(coco)
    return ResidentLoader(
        index,
        sampler_of(ShardSampler, index, **sampler),
        Reading(coco / "train2017", num_workers=num_workers, corrupt_images=corrupt_images),
        device=device,
        storage=storage,
        available_bytes=available_bytes,
    )


def threads(coco, **sampler):
    index = train_index(coco)
    return ThreadLoader(index, sampler_of(Sampler, index, **sampler), Reading(coco / "train2017", num_workers=1))


def equal_draws(one: TrainBatch, two: TrainBatch) -> bool:
    return one.rows == two.rows and all(torch.equal(getattr(one, f), getattr(two, f)) for f in DRAWN)


def test_the_next_batch_is_drawn_by_a_thread_while_this_one_is_used(coco, monkeypatch):
    drawing = []

    def noting(index, rows, streams):
        drawing.append((threading.current_thread(), rows.tolist()))
        return draw_samples(index, rows, streams)

    monkeypatch.setattr("ssd.data.resident.draw_samples", noting)
    batches = resident(coco).epoch(1)
    first = next(batches)
    batches.close()  # waits for what is being drawn
    assert [rows for _, rows in drawing[:1]] == [list(first.rows)]
    assert len(drawing) == 2
    assert {thread.name for thread, _ in drawing} == {"ssd-draw_0"}
    assert not any(thread.is_alive() for thread, _ in drawing)


def test_a_draw_that_fails_ends_the_epoch_with_its_error(coco, monkeypatch):
    def broken(*arguments):
        raise ValueError("no box")

    monkeypatch.setattr("ssd.data.resident.draw_samples", broken)
    with pytest.raises(ValueError, match="no box"):
        next(resident(coco).epoch(1))


@pytest.mark.parametrize(("epoch", "first_step"), [(1, 0), (2, 1)])
def test_one_process_sees_the_batches_of_the_threads(coco, epoch, first_step):
    """Every drawn number is the same; pixels differ by the rounding between two passes of a uint8 resize."""
    ours, theirs = resident(coco, accumulation=2), threads(coco, accumulation=2)
    assert (ours.samples, ours.steps_per_epoch, ours.repeats) == (
        theirs.samples,
        theirs.steps_per_epoch,
        theirs.repeats,
    )
    batches = list(zip(ours.epoch(epoch, first_step), theirs.epoch(epoch, first_step), strict=True))
    assert len(batches) == 2 * (ours.steps_per_epoch - first_step)
    for one, two in batches:
        assert equal_draws(one, two)
        assert (one.images.shape, one.images.dtype) == ((4, 300, 300, 3), torch.uint8)
        assert (one.images.int() - two.images.int()).abs().max() <= 1


def test_yuv420_changes_pixels_and_no_draw(coco):
    for one, two in zip(resident(coco, storage="yuv420").epoch(1), resident(coco).epoch(1), strict=True):
        assert equal_draws(one, two)
        assert 0 < (one.images.int() - two.images.int()).abs().float().mean() < 4


def test_the_loaders_crop_is_the_one_that_is_called(coco):
    loader, plain, asked = resident(coco), resident(coco), []

    def turned(slots, rectangles, planes, **options):
        asked.append(options)
        return 255 - crop(slots, rectangles, planes, **options)

    loader.crop = turned
    for one, two in zip(loader.epoch(1), plain.epoch(1), strict=True):
        assert torch.equal(one.images, 255 - two.images)
    assert len(asked) == loader.steps_per_epoch
    assert all(set(options) == {"height", "width"} for options in asked)


@pytest.mark.parametrize(
    ("samples", "world_size", "batch", "accumulation"), [(17, 2, 8, 1), (13, 3, 2, 2), (40, 4, 5, 2), (7, 7, 3, 1)]
)
def test_shards_share_an_epoch_out(samples, world_size, batch, accumulation):
    """Equal steps on every rank, the positions of the thread sampler, no sample held twice, each seen every epoch."""
    plain = [Sampler(samples, batch, 5, rank, world_size, accumulation) for rank in range(world_size)]
    ranks = [ShardSampler(samples, batch, 5, rank, world_size, accumulation) for rank in range(world_size)]
    shards = [set(sampler.shard().tolist()) for sampler in ranks]
    assert sorted(number for shard in shards for number in shard) == list(range(samples))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    epochs = []
    for epoch in (1, 2):
        drawn = [list(sampler.micro_batches(epoch)) for sampler in ranks]
        assert {len(batches) for batches in drawn} == {ranks[0].steps * accumulation}
        seen = Counter()
        for rank, batches in enumerate(drawn):
            numbers = [number for places in batches for _, number in places]
            assert set(numbers) == shards[rank]
            assert max(Counter(numbers).values()) - min(Counter(numbers).values()) <= 1
            positions = [[position for position, _ in places] for places in plain[rank].micro_batches(epoch)]
            assert [[position for position, _ in places] for places in batches] == positions
            seen.update(numbers)
        assert sum(seen.values()) == samples + plain[0].repeats
        epochs.append(drawn)
    if max(map(len, shards)) > 1:
        assert epochs[0] != epochs[1]


def test_a_seed_deals_anew_and_an_epoch_reshuffles():
    one, two = (ShardSampler(100, 10, seed, 0, 2) for seed in (1, 2))
    assert set(one.shard()) != set(two.shard())
    orders = [[number for places in one.micro_batches(epoch) for _, number in places] for epoch in (1, 2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert list(one.micro_batches(1, 3)) == list(one.micro_batches(1))[3:]
    with pytest.raises(ValueError, match="first_step = 6"):
        next(one.micro_batches(1, 6))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_draws_by_its_positions(coco, rank):
    """The numbers of a sample are those of its position, so no two ranks share a stream."""
    loader = resident(coco, batch_size=2, rank=rank, world_size=2)
    for batch, places in zip(loader.epoch(3), loader.sampler.micro_batches(3), strict=True):
        for row, (position, number) in enumerate(places):
            sample, _ = draw_sample(loader.index, int(loader.rows[number]), Sampler(13, 2, 9).stream(3, position))
            assert batch.rows[row] == sample.row
            np.testing.assert_array_equal(batch.boxes[row, : len(sample.boxes)], sample.boxes)
            np.testing.assert_array_equal(batch.factors[row], sample.colour.factors)


@pytest.mark.slow
def test_crops_are_distributed_as_the_originals(golden, tmp_path, monkeypatch):
    """Over two ranks of 97 real images, by what is left of their boxes; pixels are not needed for it."""
    merged = {"images": [], "annotations": []}
    for split in ("train2017", "val2017"):
        content = json.loads((golden / f"instances_{split}.json").read_text())
        for image in content["images"]:
            image["file_name"] = f"{split}/{image['file_name']}"
        merged["categories"] = content["categories"]
        for part in ("images", "annotations"):
            merged[part] += content[part]
    (tmp_path / "both.json").write_text(json.dumps(merged))
    index = parse_annotations(tmp_path / "both.json")
    blank = torch.zeros(1, 300, 300, 3, dtype=torch.uint8)
    monkeypatch.setattr(PixelStore, "crops", lambda self, slots, rectangles, crop: blank.expand(len(slots), -1, -1, -1))
    monkeypatch.setattr(ResidentLoader, "_fill", lambda *arguments: None)
    kept = boxes = 0
    areas, whole = [], []
    for rank in range(2):
        loader = ResidentLoader(index, ShardSampler(97, 7, 4, rank, 2), Reading(tmp_path), device=CPU)
        assert loader.samples == 97
        truth = {row: index.image_boxes(row)[0] for row in loader.rows}
        for epoch in range(1, 41):
            for batch in loader.epoch(epoch):
                for row, at in enumerate(batch.rows):
                    real = batch.boxes[row][batch.labels[row] > 0]
                    kept, boxes = kept + len(real), boxes + len(truth[at])
                    areas.append((real[:, 2:] - real[:, :2]).prod(1).mean().item())
                    tops = truth[at][:, 1::2]
                    whole.append(len(real) == len(tops) and np.allclose(real[:, 1::2], tops, atol=1e-6))
    with np.load(golden / "crop.npz") as expected:
        # 40 epochs, 3,920 draws: two thirds of golden's tolerance is noise here, so it is doubled
        assert kept / boxes == pytest.approx(expected["boxes_kept_share"].mean(), abs=0.03)
        assert np.mean(areas) == pytest.approx(expected["mean_box_area_after"][:, 0].mean(), abs=0.02)
        assert np.mean(whole) == pytest.approx(expected["option_accepted_share"].mean(0)[0], abs=0.03)


def test_nothing_is_read_before_the_first_epoch_and_no_file_after_it(coco):
    folder = coco / "train2017"
    away = folder.rename(coco / "elsewhere")
    loader = resident(coco)
    away.rename(folder)
    first = list(loader.epoch(1))
    for path in folder.iterdir():
        path.unlink()
    again = list(loader.epoch(1))
    assert all(torch.equal(one.images, two.images) for one, two in zip(first, again, strict=True))
    assert len(list(loader.epoch(2))) == 4


@pytest.mark.parametrize(("storage", "planes"), [("rgb", 1), ("yuv420", 2)])
def test_threads_fill_the_store_at_the_same_time_and_each_its_own_slots(coco, monkeypatch, storage, planes):
    """Four threads meet before each plane that they store, for 12 of the 13 images; the 13th has no three others."""
    alone = resident(coco, storage=storage, num_workers=1)
    alone.load()
    meeting, calls, writers, put = threading.Barrier(4), itertools.count(1), set(), _Plane.put

    def put_together(plane, slot, pixels):
        if next(calls) <= 12 * planes:
            meeting.wait(60)
        writers.add(threading.get_ident())
        put(plane, slot, pixels)

    monkeypatch.setattr(_Plane, "put", put_together)
    together = resident(coco, storage=storage, num_workers=4)
    together.load()
    assert len(writers) == 4
    assert threading.get_ident() not in writers
    assert together._slots == alone._slots
    for one, two in zip(alone._store.planes, together._store.planes, strict=True):
        assert torch.equal(one.stored.pixels, two.stored.pixels)


def damage(coco, image_id=104):
    path = coco / f"train2017/{image_id:012d}.jpg"
    path.write_bytes(path.read_bytes()[:500])


def test_a_corrupt_image_stops_the_run_by_name(coco):
    damage(coco)
    with pytest.raises(DataError, match=r"000000000104\.jpg \(image 104\)"):
        resident(coco).load()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ssd-decode")]


def test_a_corrupt_image_is_left_out_and_counted(coco, caplog):
    damage(coco)
    loader = resident(coco, corrupt_images="skip", batch_size=2)
    batches = list(loader.epoch(1))
    assert [(entry.image_id, entry.epoch) for entry in loader.skipped] == [(104, 0)]
    assert "000000000104.jpg" in caplog.text
    assert len(batches) == loader.steps_per_epoch == 7
    assert {row for batch in batches for row in batch.rows} == set(range(13)) - {4}


def test_a_shard_of_corrupt_images_stops_even_a_run_that_skips(coco):
    for image_id in range(100, 113):
        damage(coco, image_id)
    with pytest.raises(DataError, match=r"this process can decode none of its 7 images: .*101\.jpg"):
        resident(coco, corrupt_images="skip", world_size=2).load()


def test_an_image_of_another_size_is_refused(coco):
    (coco / "train2017/000000000101.jpg").write_bytes((coco / "train2017/000000000100.jpg").read_bytes())
    with pytest.raises(DataError, match=r"image 101.*has 160x90 pixels.*says 160x91"):
        resident(coco).load()


def test_the_estimate_is_what_is_allocated(coco):
    for storage in ("rgb", "yuv420"):
        held = []
        for rank in range(3):
            loader = resident(coco, rank=rank, world_size=3, storage=storage)
            loader.load()
            held.append(sum(plane.stored.pixels.numel() for plane in loader._store.planes))
        assert shard_bytes(loader.index, seed=9, world_size=3, storage=storage) == max(held)
        assert sum(held) == image_bytes(loader.index.sizes, storage).sum()


def test_what_does_not_fit_is_refused_with_what_would(coco):
    index = train_index(coco)
    needed = {s: shard_bytes(index, seed=9, world_size=1, storage=s) + WORKSPACE for s in ("rgb", "yuv420")}
    resident(coco, available_bytes=needed["rgb"])
    with pytest.raises(MachineError, match=r"rgb over 1 process needs 0\.5 GB.*rgb over 2 .*yuv420 over 1 process;"):
        resident(coco, available_bytes=needed["rgb"] - 1)
    with pytest.raises(MachineError, match=r"yuv420 over 2 processes; data_backend"):
        resident(coco, storage="yuv420", available_bytes=needed["yuv420"] - 1)
    with pytest.raises(MachineError, match="no number of processes"):
        resident(coco, available_bytes=WORKSPACE)


def test_what_fitted_before_the_network_was_there_is_asked_again(coco):
    loader = resident(coco, available_bytes=PLENTY)
    needed = shard_bytes(loader.index, seed=9, world_size=1, storage="rgb") + WORKSPACE
    loader.require_room(needed)
    with pytest.raises(MachineError, match=r"rgb over 1 process needs 0\.5 GB.*yuv420 over 1 process;"):
        loader.require_room(needed - 1)


@pytest.mark.parametrize("room", [60_000, 100_000, 200_000, 400_000])
def test_the_fit_that_is_named_fits_and_no_smaller_does(coco, room):
    """Shards of few images vary, so the fewest processes are found by trial and not by a division."""
    with pytest.raises(MachineError) as refused:
        resident(coco, available_bytes=WORKSPACE + room)
    sizes = dict(re.findall(r"resident_storage = (\w+) over (\d+)", str(refused.value).partition("What fits")[2]))
    assert set(sizes) <= {"rgb", "yuv420"}
    assert sizes
    for storage, least in sizes.items():
        arguments = {"storage": storage, "available_bytes": WORKSPACE + room}
        resident(coco, world_size=int(least), **arguments)
        for fewer in range(1, int(least)):
            with pytest.raises(MachineError):
                resident(coco, world_size=fewer, **arguments)


def test_coco_takes_what_is_said(coco):
    """118,287 images of about 640 x 427 pixels: 97 GB as RGB, half of it as YUV 4:2:0."""
    sizes = np.tile(np.array([(640, 427)], np.int64), (118287, 1))
    assert image_bytes(sizes, "rgb").sum() == pytest.approx(97e9, rel=0.01)
    assert image_bytes(sizes, "yuv420").sum() == pytest.approx(48.5e9, rel=0.01)


def test_more_processes_than_images_are_refused(coco):
    with pytest.raises(ConfigError, match="13 for 14 processes"):
        resident(coco, world_size=14)
