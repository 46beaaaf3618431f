"""The thread loader: order, repeatability, ranks, damaged files, shutdown; and evaluation sees each image once."""

from __future__ import annotations

import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.data import TrainBatch
from ssd.data.annotations import parse_annotations
from ssd.data.crop import draw_colour
from ssd.data.decode import load_image
from ssd.data.draws import Sample
from ssd.data.loader import EvalLoader, Reading, ThreadLoader, collate, eval_rows, in_order, train_rows
from ssd.data.sampler import Sampler
from ssd.errors import DataError


def train_loader(coco, batch_size=4, seed=9, rank=0, world_size=1, accumulation=1, **reading):
    index = parse_annotations(coco / "annotations/instances_train2017.json")
    sampler = Sampler(len(train_rows(index)), batch_size, seed, rank, world_size, accumulation)
    return ThreadLoader(index, sampler, Reading(coco / "train2017", **({"num_workers": 2} | reading)))


def eval_loader(coco, batch_size=4, rank=0, world_size=1, which="with_boxes", cache=False, **reading):
    index = parse_annotations(coco / "annotations/instances_val2017.json")
    rows = eval_rows(index, which)[rank::world_size]
    reading = Reading(coco / "val2017", **({"num_workers": 2} | reading))
    return EvalLoader(index, rows, reading, batch_size=batch_size, cache=cache)


def samples(batches):
    """A batch's samples one by one, without padding, as comparable values."""
    for batch in batches:
        for row in range(len(batch.rows)):
            real = batch.labels[row] > 0
            fields = batch.images, batch.flip, batch.factors, batch.order
            truth = batch.boxes[row][real].numpy().tobytes(), batch.labels[row][real].numpy().tobytes()
            yield batch.rows[row], *truth, *(field[row].numpy().tobytes() for field in fields)


def decoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ssd-decode")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    if decoders():
        gc.collect()  # an iterator that a test left open, in the frame of an exception for one
    assert decoders() == []


def test_a_batch_is_what_it_says(coco):
    loader = train_loader(coco)
    assert (loader.samples, loader.steps_per_epoch, loader.repeats) == (13, 4, 3)
    batches = list(loader.epoch(1))
    assert len(batches) == 4
    for batch in batches:
        assert isinstance(batch, TrainBatch)
        assert (batch.images.shape, batch.images.dtype) == ((4, 300, 300, 3), torch.uint8)
        assert (batch.boxes.dtype, batch.labels.dtype) == (torch.float32, torch.int64)
        assert batch.boxes.shape[:2] == batch.labels.shape
        assert (batch.flip.dtype, batch.factors.dtype, batch.order.dtype) == (torch.bool, torch.float32, torch.int64)
        assert (batch.boxes[batch.labels == 0] == 0).all()
        assert ((batch.boxes[batch.labels > 0] >= 0) & (batch.boxes[batch.labels > 0] <= 1)).all()
        assert set(batch.labels[batch.labels > 0].tolist()) <= {1, 2, 3}
        assert batch.order.sort(1).values.tolist() == [[0, 1, 2, 3]] * 4
    rows = [row for batch in batches for row in batch.rows]
    assert sorted(rows[:13]) == list(range(13))
    assert rows[13:] == rows[:3]


def test_boxes_are_mirrored_with_their_image_and_pixels_are_not(coco):
    """Seen on samples whose crop is the whole image: pixels are the file's, boxes mirrored where flip says so."""
    loader = train_loader(coco)
    seen = set()
    for epoch in range(1, 5):
        for batch in loader.epoch(epoch):
            for row, at in enumerate(batch.rows):
                name, size = str(loader.index.file_names[at]), tuple(loader.index.sizes[at].tolist())
                whole = torch.empty(300, 300, 3, dtype=torch.uint8)
                load_image(coco / "train2017" / name, 100 + at, size, whole)
                if not torch.equal(batch.images[row], whole):
                    continue
                expected, _ = loader.index.image_boxes(at)
                flip = bool(batch.flip[row])
                if flip:
                    expected = np.stack([1 - expected[:, 2], expected[:, 1], 1 - expected[:, 0], expected[:, 3]], 1)
                np.testing.assert_allclose(batch.boxes[row, : len(expected)], expected, atol=1e-6)
                seen.add(flip)
    assert seen == {False, True}


def test_pixels_and_boxes_get_the_same_crop(tmp_path):
    """A bright rectangle is the image's only box; in every batch the box must lie on the bright pixels."""
    pixels = np.zeros((240, 360, 3), np.uint8)
    pixels[80:160, 90:216] = 255
    Image.fromarray(pixels).save(tmp_path / "1.jpg", quality=95)
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [90, 80, 126, 80], "area": 1, "iscrowd": 0}
    image = {"id": 1, "file_name": "1.jpg", "width": 360, "height": 240}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "bright"}]}
    (tmp_path / "one.json").write_text(json.dumps(content))
    index = parse_annotations(tmp_path / "one.json")
    loader = ThreadLoader(index, Sampler(1, 8, 3), Reading(tmp_path, num_workers=2))
    cropped = 0
    for epoch in range(1, 6):
        for batch in loader.epoch(epoch):
            for row in range(8):
                left, top, right, bottom = (batch.boxes[row, 0] * 300).tolist()
                if batch.flip[row]:
                    left, right = 300 - right, 300 - left
                bright = (batch.images[row].float().mean(2) > 128).nonzero()
                low, high = bright.min(0).values.tolist(), (bright.max(0).values + 1).tolist()
                np.testing.assert_allclose([low[1], low[0], high[1], high[0]], [left, top, right, bottom], atol=5)
                cropped += (right - left) > 0.45 * 300
    assert cropped > 3


def test_the_number_of_workers_changes_nothing(coco):
    one = list(samples(train_loader(coco, num_workers=1, prefetch=1).epoch(2)))
    four = list(samples(train_loader(coco, num_workers=4, prefetch=5).epoch(2)))
    assert one == four
    assert one != list(samples(train_loader(coco).epoch(3)))
    assert one != list(samples(train_loader(coco, seed=10).epoch(2)))


def test_an_epoch_resumes_in_its_middle(coco):
    loader = train_loader(coco, batch_size=2, accumulation=2)
    whole = list(samples(loader.epoch(2)))
    assert list(samples(loader.epoch(2, first_step=2))) == whole[8:]
    assert list(loader.epoch(2, first_step=loader.steps_per_epoch)) == []


def test_two_ranks_take_what_one_would(coco):
    whole = list(samples(train_loader(coco, batch_size=4).epoch(1)))
    first, second = (
        list(samples(train_loader(coco, batch_size=2, rank=rank, world_size=2).epoch(1))) for rank in (0, 1)
    )
    joined = [sample for k in range(0, len(first), 2) for sample in (*first[k : k + 2], *second[k : k + 2])]
    assert joined == whole


def test_a_repeat_is_drawn_anew(coco):
    drawn = list(samples(train_loader(coco).epoch(1)))
    for first, again in zip(drawn[:3], drawn[13:], strict=True):
        assert first[0] == again[0]
        assert first[4:] != again[4:]


def damage(coco, split="train2017", image_id=104):
    path = coco / split / f"{image_id:012d}.jpg"
    path.write_bytes(path.read_bytes()[:500])


def test_a_corrupt_image_stops_the_run_by_name(coco):
    damage(coco)
    loader = train_loader(coco)
    place = int(np.flatnonzero(loader.sampler.order(1) == 4)[0]) // 4
    batches = loader.epoch(1)
    for _ in range(place):
        next(batches)
    with pytest.raises(DataError, match=r"000000000104\.jpg \(image 104\)"):
        next(batches)


def test_a_corrupt_image_is_skipped_and_counted(coco, caplog):
    clean = list(samples(train_loader(coco).epoch(1)))
    damage(coco)
    loader = train_loader(coco, corrupt_images="skip", num_workers=1)
    ours = list(samples(loader.epoch(1)))
    hit = [k for k, sample in enumerate(clean) if sample[0] == 4]
    assert [entry.position for entry in loader.skipped] == hit
    assert {(entry.epoch, entry.image_id) for entry in loader.skipped} == {(1, 104)}
    assert "000000000104.jpg" in caplog.text
    for k, (before, after) in enumerate(zip(clean, ours, strict=True)):
        assert (before == after) == (k not in hit)
    assert all(sample[0] != 4 for sample in ours)
    assert list(samples(train_loader(coco, corrupt_images="skip", num_workers=4).epoch(1))) == ours


def test_a_set_of_corrupt_images_stops_even_a_run_that_skips(coco):
    for image_id in range(100, 113):
        damage(coco, image_id=image_id)
    with pytest.raises(DataError, match="11 images in a row"):
        next(train_loader(coco, corrupt_images="skip").epoch(1))


def test_a_set_without_boxes_is_refused(coco):
    path = coco / "annotations/instances_train2017.json"
    content = path.read_text()
    path.write_text(
        content[: content.index('"annotations"')] + '"annotations": [], "categories": [{"id":1,"name":"a"}]}'
    )
    with pytest.raises(DataError, match="nothing to train on"):
        train_loader(coco)


def test_workers_write_at_the_same_time_and_each_its_own_image(tmp_path):
    """Four workers meet before and in the middle of every image, so each image is written while three others are."""
    meeting, consumer, drew, collected, wrote = threading.Barrier(4), threading.get_ident(), set(), set(), set()

    def keys():
        for first in range(0, 40, 4):
            drew.add(threading.get_ident())
            yield list(range(first, first + 4))

    def load(key, out):
        meeting.wait(60)
        out[:150] = key
        meeting.wait(60)
        out[150:] = key
        wrote.add(threading.get_ident())
        return key

    def collect(images, results):
        collected.add(threading.get_ident())
        return images, list(results)

    batches = list(in_order(keys(), list, load, collect, Reading(tmp_path, num_workers=4, prefetch=3)))
    assert [results for _, results in batches] == [list(range(first, first + 4)) for first in range(0, 40, 4)]
    for images, results in batches:
        for image, key in zip(images, results, strict=True):
            assert (image == key).all()
    assert drew == collected == {consumer}
    assert len(wrote) == 4
    assert consumer not in wrote


def test_the_consumer_alone_writes_what_was_skipped(coco):
    """Eight workers meet damaged images; the list is written by one thread, in the order of positions."""

    class Owned(list):
        def append(self, entry):
            assert threading.current_thread() is threading.main_thread()
            super().append(entry)

    for image_id in (101, 104, 107, 110):
        damage(coco, image_id=image_id)
    one, many = (train_loader(coco, corrupt_images="skip", num_workers=n, prefetch=3) for n in (1, 8))
    many.skipped = Owned()
    assert list(samples(one.epoch(1))) == list(samples(many.epoch(1)))
    assert len(one.skipped) >= 4
    assert list(many.skipped) == one.skipped


def test_closing_an_epoch_ends_its_threads(coco):
    batches = train_loader(coco, num_workers=3, prefetch=3).epoch(1)
    next(batches)
    assert decoders()
    batches.close()
    assert decoders() == []


def test_closing_an_epoch_decodes_none_of_the_images_still_waiting(coco, monkeypatch):
    made, second, gate = [], threading.Event(), threading.Event()

    def load(path, image_id, *rest):
        made.append(image_id)
        if len(made) == 2:
            second.set()
            gate.wait(10)

    monkeypatch.setattr("ssd.data.loader.load_image", load)
    batches = train_loader(coco, batch_size=1, num_workers=1, prefetch=3).epoch(1)
    next(batches)
    assert second.wait(10)
    threading.Timer(0.1, gate.set).start()
    batches.close()
    assert len(made) == 2, "the one being decoded when the epoch was closed is the last"


def test_an_exception_in_the_consumer_ends_the_threads(coco):
    def consume():
        for _ in train_loader(coco).epoch(1):
            raise KeyError("in the training step")

    with pytest.raises(KeyError):
        consume()
    gc.collect()
    assert decoders() == []


@pytest.mark.parametrize(("images", "workers", "tasks"), [(40, 2, [16, 16, 8]), (6, 2, [3, 3]), (3, 4, [1, 1, 1])])
def test_a_worker_takes_several_images_at_once(tmp_path, monkeypatch, images, workers, tasks):
    """At most 16, and fewer where else a worker would have none. The keys of a batch are made once, by a worker."""
    submitted, made, caller = [], [], threading.get_ident()
    submit = ThreadPoolExecutor.submit

    def counted(pool, call, *arguments):
        submitted.append([len(each) for each in arguments if isinstance(each, tuple)])
        return submit(pool, call, *arguments)

    def prepare(places):
        assert threading.get_ident() != caller
        made.append(list(places))
        return [10 * place for place in places]

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    reading = Reading(tmp_path, num_workers=workers)
    [keys] = in_order([range(images)], prepare, lambda key, out: key, lambda _, keys: keys, reading)
    assert keys == [10 * place for place in range(images)]
    assert made == [list(range(images))]
    assert submitted == [[], *([size] for size in tasks)]


def test_what_fails_before_the_first_image_is_raised_when_its_batch_is_due(tmp_path):
    def prepare(places):
        if places == [3]:
            raise KeyError("no keys")
        return places

    batches = in_order([[1], [2], [3]], prepare, lambda key, out: key, lambda _, keys: keys, Reading(tmp_path))
    assert [next(batches), next(batches)] == [[1], [2]]
    with pytest.raises(KeyError, match="no keys"):
        next(batches)


def test_a_closed_epoch_leaves_the_rest_of_a_task(tmp_path):
    """A worker that has 8 images before it when the epoch is closed makes the one that it has begun."""
    begun, closing, made = threading.Event(), threading.Event(), []

    def load(key, out):
        made.append(key)
        if key == 8:
            begun.set()
            assert closing.wait(60)

    batches = in_order([range(8), range(8, 16)], list, load, lambda *_: None, Reading(tmp_path, 1, prefetch=1))
    next(batches)
    assert begun.wait(60)
    threading.Timer(0.1, closing.set).start()
    batches.close()
    assert made == list(range(9))


def test_no_more_than_prefetch_batches_are_made_ahead(coco, monkeypatch):
    made = []
    monkeypatch.setattr("ssd.data.loader.load_image", lambda path, image_id, *rest: made.append(image_id))
    batches = train_loader(coco, batch_size=1, prefetch=2).epoch(1)
    for taken in range(1, 5):
        next(batches)
        time.sleep(0.05)
        assert taken <= len(made) <= taken + 2
    batches.close()


def test_pinned_memory_is_asked_for(coco):
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError):
            next(train_loader(coco, pin_memory=True).epoch(1))
        return
    batch = next(train_loader(coco, pin_memory=True).epoch(1))
    assert all(getattr(batch, name).is_pinned() for name in ("images", "boxes", "labels", "flip", "factors", "order"))


@pytest.mark.parametrize("world_size", [1, 2, 3, 16])
def test_evaluation_sees_each_image_once(coco, world_size):
    found = {}
    for rank in range(world_size):
        loader = eval_loader(coco, rank=rank, world_size=world_size)
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            assert batch.images.shape[1:] == (300, 300, 3)
            for row, size in zip(batch.rows, batch.sizes.tolist(), strict=True):
                assert row not in found
                found[row] = size
    index = eval_loader(coco).index
    assert found == dict(enumerate(index.sizes.tolist()))


def test_evaluated_images_are_whole(coco):
    loader = eval_loader(coco)
    batch = next(iter(loader))
    whole = torch.empty(300, 300, 3, dtype=torch.uint8)
    load_image(coco / "val2017/000000000103.jpg", 103, tuple(loader.index.sizes[3].tolist()), whole)
    assert batch.rows[3] == 3
    assert torch.equal(batch.images[3], whole)


def test_all_or_only_images_with_a_box(golden, tmp_path):
    index = parse_annotations(golden / "instances_val2017.json")
    rows = {which: eval_rows(index, which) for which in ("with_boxes", "all")}
    count = {which: len(EvalLoader(index, rows[which], Reading(tmp_path), batch_size=1)) for which in rows}
    assert count == {"with_boxes": 48, "all": 50}


def test_a_cached_evaluation_reads_no_file_twice(coco):
    loader = eval_loader(coco, cache=True)
    first = list(loader)
    for file in (coco / "val2017").iterdir():
        file.unlink()
    for one, two in zip(first, loader, strict=True):
        assert torch.equal(one.images, two.images)
        assert one.rows == two.rows
    with pytest.raises(DataError, match="cannot be read"):
        list(eval_loader(coco))


def test_a_first_pass_cut_short_caches_nothing(coco):
    loader = eval_loader(coco, cache=True)
    batches = iter(loader)
    next(batches)
    batches.close()
    assert [len(batch.rows) for batch in loader] == [4, 4, 3]


def test_a_corrupt_image_stops_evaluation(coco):
    damage(coco, "val2017", 105)
    with pytest.raises(DataError, match=r"000000000105\.jpg"):
        list(eval_loader(coco))


def test_a_batch_holds_any_number_of_boxes():
    """The original failed at more than 200 boxes an image."""
    rng = np.random.default_rng(0)
    many = Sample(rng.random((300, 4), dtype=np.float32), np.ones(300, np.int64), draw_colour(rng), 1)
    one = Sample(rng.random((1, 4), dtype=np.float32), np.full(1, 7), draw_colour(rng), 2)
    batch = collate(torch.zeros(2, 300, 300, 3, dtype=torch.uint8), [many, one])
    assert batch.boxes.shape == (2, 300, 4)
    assert (batch.labels > 0).sum(1).tolist() == [300, 1]
    assert torch.equal(batch.boxes[0], torch.from_numpy(many.boxes))
