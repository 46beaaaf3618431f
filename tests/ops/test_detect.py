"""Detection: golden parity, a naive reference, ties, empty and crowded images, what must not be modified."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.boxes import DefaultBoxes, decode_offsets, ltrb_to_xywh, xywh_to_ltrb
from ssd.ops import detect

ROWS = ("boxes", "scores", "labels", "count")


def golden_input(seed: int, k: int):
    """locations (4, D) and logits (81, D) of image k, by tests/golden/README.md (decode.npz)."""
    r = np.random.Generator(np.random.PCG64(seed))
    locations = r.standard_normal((4, 8732))
    z = r.standard_normal((81, 8732))
    if k == 0:
        z *= 0.7
        z[0] += 6
        for _ in range(14):
            s = r.integers(0, 8732 - 40)
            c = r.integers(1, 81)
            z[c, s : s + 40] += 7
        c = r.integers(1, 81)
        z[c, 8542:] += 7
    elif k == 1:
        z *= 0.1
    elif k == 2:
        z *= 0.7
        z[0] += 7
        z[17, r.permutation(8732)[:900]] += 7
        z[42, 7000:7230] += 8
    else:
        z = np.zeros((81, 8732))
        z[0] = 6
        index = r.permutation(8732)[:600]
        label = r.integers(1, 81, 600)
        z[label, index] = 6 + 0.5 * r.integers(-2, 5, 600)
    return torch.from_numpy(locations).float(), torch.from_numpy(z).float()


@pytest.fixture(scope="module")
def numbers(golden):
    return np.load(golden / "decode.npz")


@pytest.fixture(scope="module")
def golden_batch(numbers):
    pairs = [golden_input(int(seed), k) for k, seed in enumerate(numbers["seeds"])]
    return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])


def naive_overlap(a, b) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def naive_detect(locations, logits, defaults, threshold, overlap, candidates, detections):
    """One image, class by class and box by box: [(default, label)], best first."""
    scores = logits.softmax(0).tolist()
    centre = 0.1 * locations[:2] * defaults.xywh.T[2:] + defaults.xywh.T[:2]
    half = torch.exp(0.2 * locations[2:]) * defaults.xywh.T[2:] / 2
    boxes = torch.cat((centre - half, centre + half)).T.tolist()
    found = []
    for label in range(1, len(scores)):
        left = [d for d, score in enumerate(scores[label]) if score > threshold]
        left = sorted(left, key=lambda d: (-scores[label][d], d))[:candidates]
        while left:
            best = left.pop(0)
            found.append((best, label))
            left = [d for d in left if naive_overlap(boxes[best], boxes[d]) < overlap]
    return sorted(found, key=lambda pair: (-scores[pair[1]][pair[0]], pair))[:detections], boxes, scores


def test_golden_all_images_of_a_batch(numbers, golden_batch, defaults):
    """Trap of the original: one image without detections ended the batch, and 2 of 4 results came back."""
    found = detect(*golden_batch, defaults)
    assert found.count.tolist() == [len(numbers[f"img{k}_scores"]) for k in range(4)] == [200, 0, 200, 200]
    for k in range(4):
        n = found.count[k]
        scores = found.scores[k, :n].flip(0)  # golden ascends
        np.testing.assert_allclose(scores, numbers[f"img{k}_scores"], rtol=0, atol=1e-5 if k == 3 else 1e-6)
        if k < 3:  # image 3 is full of ties, whose order the original left open
            np.testing.assert_array_equal(found.labels[k, :n].flip(0), numbers[f"img{k}_labels"])
            boxes = found.boxes[k, :n].flip(0)
            np.testing.assert_allclose(boxes, numbers[f"img{k}_boxes_ltrb"], rtol=0, atol=1e-5)
            outside = ((boxes < 0) | (boxes > 1)).any(1).sum()
            assert outside == numbers[f"img{k}_n_boxes_outside_unit"]
        for name in ("boxes", "scores", "labels"):
            assert getattr(found, name)[k, n:].abs().sum() == 0


def test_golden_candidates(numbers, golden_batch, defaults):
    """Before the caps: how many scores pass, and how many survive NMS."""
    locations, logits = golden_batch
    over = (logits.softmax(1) > 0.05).sum(2)
    for k in range(4):
        np.testing.assert_array_equal(over[k, 1:], numbers[f"img{k}_n_over_threshold_per_class"][1:])
    found = detect(locations, logits, defaults, max_detections=16000)
    survivors = [int(numbers[f"img{k}_n_after_nms_before_cap"]) for k in range(4)]
    assert found.count.tolist()[:3] == survivors[:3]


def test_golden_decoded_boxes(numbers, golden_batch, defaults):
    boxes = xywh_to_ltrb(decode_offsets(golden_batch[0].transpose(1, 2), defaults.xywh))
    for k in range(4):
        np.testing.assert_allclose(boxes[k, ::37], numbers[f"img{k}_decoded_all_1of37"], rtol=0, atol=1e-5)


def test_inputs_are_left_alone(golden_batch, defaults):
    """Trap of the original: decoding overwrote the caller's locations."""
    kept = [x.clone() for x in golden_batch]
    detect(*golden_batch, defaults)
    assert all(torch.equal(x, y) for x, y in zip(golden_batch, kept, strict=True))


def some_inputs(seed, batch, classes, tie=False, step=97):
    """A crowded image: offsets that pile boxes up, scores in a few levels where ties are wanted."""
    g = torch.Generator().manual_seed(seed)
    count = len(range(0, 8732, step))
    locations = 2 * torch.randn(batch, 4, count, generator=g)
    logits = torch.randn(batch, classes, count, generator=g)
    return locations, logits.round() if tie else logits


def thinned(defaults, step=97):
    return DefaultBoxes(defaults.xywh[::step], defaults.ltrb[::step])


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize(
    ("batch", "classes", "threshold", "candidates", "detections"),
    [(1, 4, 0.05, 200, 200), (3, 4, 0.3, 20, 15), (2, 9, 0.05, 7, 200), (5, 2, 0.0, 200, 3)],
)
def test_against_the_naive_reference(defaults, tie, batch, classes, threshold, candidates, detections):
    fewer = thinned(defaults)
    locations, logits = some_inputs(classes, batch, classes, tie)
    found = detect(
        locations,
        logits,
        fewer,
        score_threshold=threshold,
        max_candidates=candidates,
        max_detections=detections,
    )
    assert found.boxes.shape == (batch, detections, 4)
    for b in range(batch):
        pairs, boxes, scores = naive_detect(locations[b], logits[b], fewer, threshold, 0.5, candidates, detections)
        n = int(found.count[b])
        assert found.labels[b, :n].tolist() == [label for _, label in pairs]
        torch.testing.assert_close(found.boxes[b, :n], torch.tensor([boxes[d] for d, _ in pairs]))
        torch.testing.assert_close(found.scores[b, :n], torch.tensor([scores[c][d] for d, c in pairs]))


def test_rounds_of_bounded_memory_give_the_same(defaults, monkeypatch):
    inputs = some_inputs(3, 3, 9)
    whole = detect(*inputs, thinned(defaults))
    # The module by its path: `ssd.ops.detect` is the function of that name.
    monkeypatch.setattr(sys.modules[detect.__module__], "OVERLAPS_AT_ONCE", 500)
    pieces = detect(*inputs, thinned(defaults))
    for name in ROWS:
        assert torch.equal(getattr(whole, name), getattr(pieces, name))


def boxes_and_scores(defaults, scores):
    """Inputs whose decoded boxes are the defaults themselves, with given scores (C - 1, D) of the classes."""
    scores = torch.tensor(scores)
    logits = torch.cat((1 - scores.sum(0, keepdim=True), scores)).log()
    return torch.zeros(1, 4, scores.shape[1]), logits.unsqueeze(0), defaults


def plain_defaults(*ltrb):
    boxes = torch.tensor(ltrb)
    return DefaultBoxes(ltrb_to_xywh(boxes), boxes)


def test_worked_by_hand():
    """Centre 0.5 + 0.1 * 0.2 and 0.5 - 0.1 * 0.4; width 0.2 * 2 and height as it is. Probabilities 0.1, 0.3, 0.6."""
    default = DefaultBoxes(torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.tensor([[0.4, 0.3, 0.6, 0.7]]))
    locations = torch.tensor([[[1.0], [-1.0], [5 * 0.69314718], [0.0]]])
    logits = torch.tensor([[[1.0], [3.0], [6.0]]]).log()
    found = detect(locations, logits, default, max_detections=3)
    assert found.count.tolist() == [2]
    assert found.labels.tolist() == [[2, 1, 0]]
    torch.testing.assert_close(found.scores, torch.tensor([[0.6, 0.3, 0.0]]))
    torch.testing.assert_close(found.boxes[0, :2], torch.tensor([[0.32, 0.26, 0.72, 0.66]]).expand(2, 4))


def test_equal_scores_come_lowest_default_first_then_lowest_class():
    apart = plain_defaults([0.0, 0.0, 0.1, 0.1], [0.5, 0.0, 0.6, 0.1], [0.0, 0.5, 0.1, 0.6])
    found = detect(*boxes_and_scores(apart, [[0.25, 0.25, 0.5], [0.25, 0.25, 0.25]]))
    assert found.labels[0, :6].tolist() == [1, 1, 2, 1, 2, 2]
    torch.testing.assert_close(found.boxes[0, :6], apart.ltrb[[2, 0, 0, 1, 1, 2]])
    capped = detect(*boxes_and_scores(apart, [[0.25, 0.25, 0.5], [0.25, 0.25, 0.25]]), max_detections=3)
    assert capped.labels[0].tolist() == [1, 1, 2]


def test_of_equal_and_equally_scored_boxes_the_lowest_default_stays():
    twins = plain_defaults([0.1, 0.1, 0.3, 0.3], [0.1, 0.1, 0.3, 0.3001], [0.1, 0.1, 0.3, 0.3])
    found = detect(*boxes_and_scores(twins, [[0.5, 0.5, 0.5]]))
    assert found.count.tolist() == [1]
    torch.testing.assert_close(found.boxes[0, 0], twins.ltrb[0])


def test_an_overlap_of_exactly_one_half_suppresses():
    pair = plain_defaults([0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.25])
    assert detect(*boxes_and_scores(pair, [[0.9, 0.8]])).count.tolist() == [1]
    assert detect(*boxes_and_scores(pair, [[0.9, 0.8]]), nms_overlap=0.51).count.tolist() == [2]


def test_a_suppressed_box_suppresses_nothing():
    """A chain: the first removes the second, so the third, which only the second overlaps, stays."""
    chain = plain_defaults([0.0, 0.0, 0.4, 0.4], [0.1, 0.0, 0.5, 0.4], [0.2, 0.0, 0.6, 0.4])
    found = detect(*boxes_and_scores(chain, [[0.9, 0.8, 0.7]]))
    torch.testing.assert_close(found.boxes[0, :2], chain.ltrb[[0, 2]])
    assert found.count.tolist() == [2]


def test_classes_do_not_suppress_each_other():
    twins = plain_defaults([0.1, 0.1, 0.3, 0.3], [0.1, 0.1, 0.3, 0.3])
    found = detect(*boxes_and_scores(twins, [[0.6, 0.1], [0.1, 0.6]]))
    assert sorted(found.labels[0, : found.count[0]].tolist()) == [1, 2]


def test_the_score_threshold_is_an_argument_and_strict(defaults):
    """Trap of the original: the fast path had 0.05 written into it."""
    two = plain_defaults([0.0, 0.0, 0.1, 0.1], [0.5, 0.0, 0.6, 0.1])
    inputs = boxes_and_scores(two, [[0.25, 0.75]])
    exact = inputs[1].softmax(1)[0, 1, 0].item()
    assert detect(*inputs, score_threshold=exact).count.tolist() == [1]
    assert detect(*inputs, score_threshold=exact - 1e-6).count.tolist() == [2]


@pytest.mark.parametrize("batch", [1, 3])
def test_no_detection_at_all(defaults, batch):
    found = detect(torch.zeros(batch, 4, 8732), torch.zeros(batch, 81, 8732), defaults)
    assert found.count.tolist() == [0] * batch
    assert found.boxes.shape == (batch, 200, 4)
    assert found.boxes.abs().sum() == found.scores.sum() == 0


def test_every_default_of_every_class(defaults):
    """Nothing learnt yet: four classes, all scores equal and over the threshold."""
    found = detect(torch.zeros(2, 4, 8732), torch.zeros(2, 4, 8732), defaults)
    assert found.count.tolist() == [found.count[0]] * 2
    # The 200 candidates of each class are the first 200 squares, of which neighbours overlap by less than half.
    assert found.labels[0, :6].tolist() == [1, 2, 3, 1, 2, 3]
    torch.testing.assert_close(found.boxes[0, 3], defaults.ltrb[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_never_a_detection(defaults, bad):
    fewer = thinned(defaults)
    locations, logits = some_inputs(5, 3, 4)
    expected = detect(locations, logits, fewer)
    locations[1, 2, 7] = bad
    logits[2, 1, 9] = float("nan")
    found = detect(locations, logits, fewer)
    assert found.boxes.isfinite().all()
    assert found.scores.isfinite().all()
    assert torch.equal(found.boxes[0], expected.boxes[0])
    assert found.count[1:].min() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(defaults, dtype):
    low = [x.to(dtype) for x in some_inputs(6, 3, 5)]
    found = detect(*low, thinned(defaults))
    expected = detect(*(x.float() for x in low), thinned(defaults))
    assert found.scores.dtype == found.boxes.dtype == torch.float32
    for name in ROWS:
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_strided_inputs(defaults):
    inputs = some_inputs(7, 3, 5)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    found, expected = (detect(*x, thinned(defaults)) for x in (strided, inputs))
    for name in ROWS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 6), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(defaults, seed, batch, classes, tie, r):
    locations, logits = some_inputs(seed, batch, classes, tie)
    found = detect(locations, logits, thinned(defaults))
    order = r.sample(range(batch), batch)
    shuffled = detect(locations[order], logits[order], thinned(defaults))
    for name in ROWS:
        assert torch.equal(getattr(shuffled, name), getattr(found, name)[order])
    assert (found.scores.diff(dim=1) <= 0).all()
