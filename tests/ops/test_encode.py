"""Matching: golden parity, a naive reference from the paper, ties, padding, degenerate boxes, round trips."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.boxes import DefaultBoxes, decode_offsets, ltrb_to_xywh, xywh_to_ltrb
from ssd.ops import encode


def naive_overlap(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def naive_match(boxes, labels, defaults, criteria=0.5) -> list[int]:
    """Ground-truth index of each default, -1 for background; box by box, one image."""
    real = [i for i, label in enumerate(labels) if label > 0]
    matched = [-1] * len(defaults)
    for d, default in enumerate(defaults):
        best, best_overlap = -1, criteria
        for i in real:
            overlap = naive_overlap(boxes[i], default)
            if overlap > best_overlap:
                best, best_overlap = i, overlap
        matched[d] = best
    for i in real:
        overlaps = [naive_overlap(boxes[i], default) for default in defaults]
        matched[overlaps.index(max(overlaps))] = i
    return matched


def some_defaults(*ltrb) -> DefaultBoxes:
    boxes = torch.tensor(ltrb)
    return DefaultBoxes(ltrb_to_xywh(boxes), boxes)


@pytest.fixture(scope="module")
def numbers(golden):
    return np.load(golden / "encode.npz")


@pytest.mark.parametrize("case", range(15))
def test_golden(numbers, defaults, case):
    boxes = torch.from_numpy(numbers[f"case{case}_gt_ltrb"]).reshape(1, -1, 4)
    labels = torch.from_numpy(numbers[f"case{case}_gt_labels"]).reshape(1, -1)
    offsets, targets = encode(boxes, labels, defaults)
    found = targets[0].nonzero().flatten()
    np.testing.assert_array_equal(found, numbers[f"case{case}_pos_idx"])
    np.testing.assert_array_equal(targets[0, found], numbers[f"case{case}_pos_labels"])
    decoded = decode_offsets(offsets[0, :, found].T, defaults.xywh[found])
    np.testing.assert_allclose(decoded, numbers[f"case{case}_pos_xywh"].reshape(-1, 4), rtol=0, atol=1e-6)
    # Best defaults are positive, whatever their overlap.
    if case != 14:  # the one without boxes
        assert set(numbers[f"case{case}_best_default"]) <= set(found.tolist())
    assert offsets[0, :, targets[0] == 0].abs().sum() == 0


def test_worked_by_hand():
    """The first box overlaps its default by 0.144 / 0.176 > 0.5. The second by exactly 0.5: it takes it as its best."""
    defaults = some_defaults([0.0, 0.0, 0.4, 0.4], [0.4, 0.4, 0.8, 0.8], [0.0, 0.6, 0.2, 0.8])
    boxes = torch.tensor([[[0.04, 0.0, 0.44, 0.4], [0.4, 0.4, 0.8, 0.6]]])
    offsets, labels = encode(boxes, torch.tensor([[7, 3]]), defaults)
    assert labels.tolist() == [[7, 3, 0]]
    # 10 * (0.24 - 0.20) / 0.4 = 1; 10 * (0.5 - 0.6) / 0.4 = -2.5; 5 * ln(0.2 / 0.4) = -3.4657359.
    expected = [[[1.0, 0.0, 0.0], [0.0, -2.5, 0.0], [0.0, 0.0, 0.0], [0.0, -3.4657359, 0.0]]]
    torch.testing.assert_close(offsets, torch.tensor(expected), rtol=0, atol=1e-5)


def test_golden_in_one_padded_batch(numbers, defaults):
    """The same images padded to the largest of them, with padding in front, between and behind."""
    largest = max(len(numbers[f"case{k}_gt_labels"]) for k in range(15)) + 3
    boxes, labels = torch.zeros(15, largest, 4), torch.zeros(15, largest, dtype=torch.int64)
    g = torch.Generator().manual_seed(0)
    for k in range(15):
        count = len(numbers[f"case{k}_gt_labels"])
        rows = torch.randperm(largest, generator=g)[:count].sort().values
        boxes[k, rows] = torch.from_numpy(numbers[f"case{k}_gt_ltrb"])
        labels[k, rows] = torch.from_numpy(numbers[f"case{k}_gt_labels"])
    boxes[labels == 0] = torch.tensor([0.2, 0.2, 0.7, 0.7])  # what lies in padding must not matter
    _, targets = encode(boxes, labels, defaults)
    for k in range(15):
        np.testing.assert_array_equal(targets[k].nonzero().flatten(), numbers[f"case{k}_pos_idx"])
        np.testing.assert_array_equal(targets[k][targets[k] > 0], numbers[f"case{k}_pos_labels"])


@pytest.mark.parametrize("seed", range(3))
def test_against_the_naive_reference(defaults, draw_ground_truth, seed):
    some = slice(seed, None, 41)
    fewer = DefaultBoxes(defaults.xywh[some], defaults.ltrb[some])
    boxes, labels = draw_ground_truth(seed, 3, 7)
    labels[torch.rand(3, 7, generator=torch.Generator().manual_seed(seed)) < 0.3] = 0
    offsets, targets = encode(boxes, labels, fewer)
    for b in range(3):
        matched = torch.tensor(naive_match(boxes[b].tolist(), labels[b].tolist(), fewer.ltrb.tolist()))
        expected = torch.where(matched >= 0, labels[b][matched], 0)
        assert torch.equal(targets[b], expected)
        rows = matched >= 0
        decoded = xywh_to_ltrb(decode_offsets(offsets[b, :, rows].T, fewer.xywh[rows]))
        torch.testing.assert_close(decoded, boxes[b][matched[rows]], rtol=0, atol=1e-6)


def test_of_several_boxes_with_one_best_default_the_last_wins():
    """Trap of the original: writes to duplicate indices decided, without an order on a GPU."""
    defaults = some_defaults([0.0, 0.0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9])
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.4, 0.5], [0.0, 0.0, 0.1, 0.1]]])
    _, targets = encode(boxes, torch.tensor([[7, 8, 9]]), defaults)
    assert targets.tolist() == [[9, 0]]
    _, targets = encode(boxes, torch.tensor([[7, 8, 0]]), defaults)
    assert targets.tolist() == [[8, 0]]


def test_ties_take_the_lowest():
    twin = some_defaults([0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9])
    box = [0.0, 0.0, 0.2, 0.2]  # below the criterion, so only the best default counts
    assert encode(torch.tensor([[box]]), torch.tensor([[3]]), twin)[1].tolist() == [[3, 0, 0]]
    # Two equal boxes: the first default goes to the last of them, the second one, by overlap, to the first.
    equal = torch.tensor([[[0.0, 0.0, 0.5, 0.5]] * 2])
    assert encode(equal, torch.tensor([[4, 5]]), twin)[1].tolist() == [[5, 4, 0]]


def test_the_criterion_is_strict():
    defaults = some_defaults([0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.5, 0.25])
    _, targets = encode(torch.tensor([[[0.0, 0.0, 0.5, 0.5]]]), torch.tensor([[2]]), defaults)
    assert targets.tolist() == [[2, 0, 0]]  # overlaps 1, 0.5, 0.5
    assert encode(torch.tensor([[[0.0, 0.0, 0.5, 0.5]]]), torch.tensor([[2]]), defaults, criteria=0.49)[1].tolist() == [
        [2, 2, 2]
    ]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_an_image_without_boxes_is_background(defaults, draw_ground_truth, count):
    boxes, labels = draw_ground_truth(0, 2, count)
    offsets, targets = encode(boxes, torch.zeros_like(labels), defaults)
    assert offsets.shape == (2, 4, 8732)
    assert targets.shape == (2, 8732)
    assert offsets.abs().sum() == 0
    assert targets.sum() == 0
    assert (offsets.dtype, targets.dtype) == (torch.float32, torch.int64)


def test_many_overlapping_boxes_are_boxes_like_any_other(defaults):
    """Crowd annotations arrive as plain boxes: large, overlapping, many of one class."""
    corner = torch.rand(1, 60, 2, generator=torch.Generator().manual_seed(2)) * 0.3
    boxes = torch.cat((corner, corner + 0.6), dim=2)
    offsets, targets = encode(boxes, torch.ones(1, 60, dtype=torch.int64), defaults)
    assert offsets.isfinite().all()
    assert targets.sum() >= 20


@pytest.mark.parametrize(
    "broken",
    [
        [0.3, 0.3, 0.3, 0.6],
        [0.3, 0.3, 0.3, 0.3],
        [0.7, 0.1, 0.3, 0.2],
        [float("nan"), 0.1, 0.3, 0.2],
        [0.1, 0.1, float("inf"), 0.2],
    ],
)
def test_a_box_without_area_counts_as_padding(defaults, draw_ground_truth, broken):
    boxes, labels = draw_ground_truth(1, 2, 3)
    expected = encode(boxes, labels, defaults)
    boxes = torch.cat((torch.tensor(broken).expand(2, 1, 4), boxes), dim=1)
    actual = encode(boxes, torch.cat((torch.full((2, 1), 5), labels), dim=1), defaults)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


def test_a_tiny_box_still_gets_its_default(defaults):
    box = torch.tensor([[[0.5, 0.5, 0.5002, 0.5001]]])
    offsets, targets = encode(box, torch.tensor([[11]]), defaults)
    assert (targets == 11).sum() == 1
    assert offsets.isfinite().all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 9), st.randoms(use_true_random=False))
def test_decoding_inverts_it_and_the_order_of_images_does_not_matter(
    defaults, draw_ground_truth, seed, batch, count, r
):
    boxes, labels = draw_ground_truth(seed, batch, count)
    offsets, targets = encode(boxes, labels, defaults)
    decoded = xywh_to_ltrb(decode_offsets(offsets.transpose(1, 2), defaults.xywh))
    for b in range(batch):
        rows = targets[b] > 0
        assert rows.any()
        near = torch.cdist(decoded[b][rows], boxes[b], p=float("inf")).min(dim=1)
        assert near.values.max() < 1e-5
    order = r.sample(range(batch), batch)
    shuffled = encode(boxes[order], labels[order], defaults)
    assert torch.equal(shuffled[0], offsets[order])
    assert torch.equal(shuffled[1], targets[order])


def test_layouts_dtypes_and_inputs_left_alone(defaults, draw_ground_truth):
    boxes, labels = draw_ground_truth(4, 3, 5)
    expected = encode(boxes, labels, defaults)
    strided = torch.empty(3, 4, 10)[:, :, ::2].transpose(1, 2).copy_(boxes)
    assert not strided.is_contiguous()
    kept = strided.clone()
    actual = encode(strided, labels.t().contiguous().t(), defaults)
    for ours, reference in zip(actual, expected, strict=True):
        assert torch.equal(ours, reference)
        assert ours.is_contiguous()
    assert torch.equal(strided, kept)
    assert encode(boxes.double(), labels, defaults)[0].dtype == torch.float32


def test_epsilon_shifts_the_targets_as_the_original_did(defaults, draw_ground_truth):
    boxes, labels = draw_ground_truth(5, 1, 3)
    plain, shifted = (encode(boxes, labels, defaults, epsilon=e)[0] for e in (0.0, 1e-5))
    assert 0 < (plain - shifted).abs().max() < 2e-2
