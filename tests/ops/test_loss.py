"""The loss: golden parity, mining against a naive reference, what must never be counted, masked or differentiated."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.boxes import encode_offsets
from ssd.ops import loss
from ssd.ops.loss import mine_negatives


@pytest.fixture(scope="module")
def numbers(golden):
    return np.load(golden / "loss.npz")


@pytest.fixture(scope="module")
def golden_inputs(numbers, defaults):
    """prefix -> locations, logits, offsets, labels by the recipe of tests/golden/README.md (loss.npz)."""

    def make(prefix):
        r = np.random.Generator(np.random.PCG64(int(numbers[f"{prefix}_seed"])))
        positives = numbers[f"{prefix}_npos_recipe"]
        batch = len(positives)
        locations = r.standard_normal((batch, 4, 8732)).astype(np.float32)
        logits = (2 * r.standard_normal((batch, 81, 8732))).astype(np.float32)
        z = r.standard_normal((batch, 4, 8732))
        d = defaults.xywh.double().numpy().T
        boxes = np.concatenate((d[:2] + 0.1 * d[2:] * z[:, :2], d[2:] * np.exp(0.2 * z[:, 2:])), axis=1)
        labels = np.zeros((batch, 8732), dtype=np.int64)
        for b, n in enumerate(positives):
            index = r.permutation(8732)[:n]
            labels[b, index] = r.integers(1, 81, n)
        target = torch.from_numpy(boxes).float().transpose(1, 2)
        offsets = encode_offsets(target, defaults.xywh).transpose(1, 2)
        return torch.from_numpy(locations), torch.from_numpy(logits), offsets, torch.from_numpy(labels)

    return make


def random_inputs(seed, batch=2, classes=5, count=60, positives=6):
    g = torch.Generator().manual_seed(seed)
    labels = torch.zeros(batch, count, dtype=torch.int64)
    for b in range(batch):
        labels[b, torch.randperm(count, generator=g)[:positives]] = torch.randint(1, classes, (positives,), generator=g)
    return (
        torch.randn(batch, 4, count, generator=g),
        torch.randn(batch, classes, count, generator=g),
        torch.randn(batch, 4, count, generator=g) * (labels > 0).unsqueeze(1),
        labels,
    )


def naive_mined(cross_entropy, positive, ratio=3) -> set[int]:
    ranked = sorted((i for i in range(len(positive)) if not positive[i]), key=lambda i: (-cross_entropy[i], i))
    return set(ranked[: ratio * sum(positive)])


def naive_loss(locations, logits, offsets, labels) -> float:
    """One image, default by default."""
    positive = (labels > 0).tolist()
    if not any(positive):
        return 0.0
    entropies = [float(torch.logsumexp(logits[:, d], 0) - logits[labels[d], d]) for d in range(len(positive))]
    total = 0.0
    for d in (d for d, is_positive in enumerate(positive) if is_positive):
        for x in (locations[:, d] - offsets[:, d]).abs().tolist():
            total += 0.5 * x * x if x < 1 else x - 0.5
        total += entropies[d]
    total += sum(entropies[d] for d in naive_mined(entropies, positive))
    return total / sum(positive)


def test_worked_by_hand():
    """Cross-entropies are whole multiples of ln 2, as the targets' probabilities are 1/2, 1/4, 1/8, 1/16, 1/2."""
    probability = torch.tensor([[0.25, 0.25, 0.125, 0.0625, 0.5], [0.5, 0.5, 0.5, 0.5, 0.25], [0.25] * 5]).log()
    logits = torch.stack((probability, probability))
    differences = torch.zeros(2, 4, 5)
    differences[:, :, 0] = torch.tensor([0.5, -1.0, 2.0, 0.0])  # 0.125 + 0.5 + 1.5 + 0 = 2.125
    differences[:, 0, 1] = 9.0  # 8.5 where default 1 is positive, and nothing where it is background
    labels = torch.tensor([[1, 0, 0, 0, 0], [1, 2, 0, 0, 0]])
    value = loss(differences, logits, torch.zeros(2, 4, 5), labels)
    # Image 0: a positive, ln 2; of 2, 3, 4 and 1 ln 2 the three largest are mined. Normalisation adds ln(column sum).
    sums = probability.exp().sum(0).log()
    first = 2.125 + (1 + 4 + 3 + 2) * math.log(2) + sums[[0, 1, 2, 3]].sum()
    # Image 1: two positives, ln 2 and 2 ln 2; the quota of six takes all three that are left.
    second = 2.125 + 8.5 + (1 + 2 + 3 + 4 + 1) * math.log(2) + sums.sum()
    torch.testing.assert_close(value, torch.stack((first, second / 2)))


@pytest.mark.parametrize("prefix", ["a", "b"])
def test_golden(numbers, golden_inputs, prefix):
    """`optloss` has targets without epsilon; prefix b, where it counts positives twice, is compared without that."""
    locations, logits, offsets, labels = golden_inputs(prefix)
    locations.requires_grad_()
    logits.requires_grad_()
    per_image = loss(locations, logits, offsets, labels)
    # without_double_count is made from the native loss, whose targets have an epsilon: 1e-3 in target units.
    key = "a_optloss_per_image" if prefix == "a" else "b_loss_per_image_without_double_count"
    np.testing.assert_allclose(per_image.detach(), numbers[key], rtol=1e-5)
    positive = labels > 0
    mined = mine_negatives(torch.nn.functional.cross_entropy(logits, labels, reduction="none"), positive, 3)
    for b in range(len(labels)):
        found = mined[b].nonzero().flatten().tolist()
        assert not set(found) & set(positive[b].nonzero().flatten().tolist())
        expected = set(numbers[f"{prefix}_neg_selected_{b}"].tolist())
        if prefix == "a":
            assert found == sorted(expected)
            assert len(found) == numbers["a_neg_num"][b] == 3 * positive[b].sum()
        else:
            assert expected == set(found)
            assert len(found) == 8732 - 2600
    if prefix == "b":
        return
    per_image.mean().backward()
    for name, grad in (("ploc", locations.grad), ("plabel", logits.grad)):
        norms = grad.flatten(1).norm(dim=1)
        np.testing.assert_allclose(norms, numbers[f"a_optloss_grad_{name}_norm_per_image"], rtol=1e-5)


def test_golden_sampled_gradients_with_the_originals_epsilon(numbers, golden_inputs, defaults):
    """The sampled gradients are of the native loss, whose targets have e = 1e-5."""
    locations, logits, offsets, labels = golden_inputs("a")
    boxes = torch.from_numpy(np.asarray(offsets)).transpose(1, 2)
    size = defaults.xywh[:, 2:]
    xywh = torch.cat((boxes[..., :2] / 10 * size + defaults.xywh[:, :2], torch.exp(boxes[..., 2:] / 5) * size), dim=2)
    offsets = encode_offsets(xywh, defaults.xywh, epsilon=1e-5).transpose(1, 2)
    locations.requires_grad_()
    logits.requires_grad_()
    per_image = loss(locations, logits, offsets, labels)
    np.testing.assert_allclose(per_image.detach(), numbers["a_loss_per_image"], rtol=1e-5)
    np.testing.assert_allclose(per_image.mean().detach(), numbers["a_loss_mean"], rtol=1e-5)
    per_image.mean().backward()
    for name, grad in (("ploc", locations.grad), ("plabel", logits.grad)):
        index = tuple(numbers[f"a_sample_{name}_index"].T)
        np.testing.assert_allclose(grad.numpy()[index], numbers[f"a_sample_{name}_grad"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("positives", [1, 6, 15, 40, 60])
@pytest.mark.parametrize("batch", [1, 3])
def test_against_the_naive_reference(positives, batch):
    """60 defaults: with 15 positives the quota takes every negative, with 40 and 60 it is cut."""
    inputs = random_inputs(positives, batch=batch, positives=positives)
    expected = [naive_loss(*(x[b] for x in inputs)) for b in range(batch)]
    np.testing.assert_allclose(loss(*inputs), expected, rtol=1e-5)


def test_positives_are_never_mined():
    """Trap of the original: with more than a quarter positive the quota reached them, and they counted twice."""
    _, logits, _, labels = random_inputs(0, positives=50)
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    mined = mine_negatives(cross_entropy, labels > 0, 3)
    assert torch.equal(mined, labels == 0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40), st.integers(1, 4))
def test_mining_with_ties_is_exact(entries, ratio):
    cross_entropy = torch.tensor([[value / 4 for value, _ in entries]])
    positive = torch.tensor([[flag for _, flag in entries]])
    mined = mine_negatives(cross_entropy, positive, ratio)
    expected = naive_mined(cross_entropy[0].tolist(), positive[0].tolist(), ratio)
    assert set(mined[0].nonzero().flatten().tolist()) == expected


def test_all_equal_entropies_mine_the_lowest_defaults():
    labels = torch.zeros(2, 8732, dtype=torch.int64)
    labels[0, [3, 100]] = 1
    labels[1, 0] = 2
    mined = mine_negatives(torch.zeros(2, 8732), labels > 0, 3)
    assert mined[0].nonzero().flatten().tolist() == [0, 1, 2, 4, 5, 6]
    assert mined[1].nonzero().flatten().tolist() == [1, 2, 3]


def test_an_image_without_positives_costs_nothing_and_has_no_gradient():
    locations, logits, offsets, labels = random_inputs(1)
    labels[0], offsets[0] = 0, 0
    locations.requires_grad_()
    logits.requires_grad_()
    value = loss(locations, logits, offsets, labels)
    assert value[0] == 0
    assert value[1] > 0
    value.sum().backward()
    assert locations.grad[0].abs().max() == 0
    assert logits.grad[0].abs().max() == 0


def test_gradients_flow_through_the_counted_terms_alone():
    locations, logits, offsets, labels = random_inputs(2, batch=3)
    locations.requires_grad_()
    logits.requires_grad_()
    loss(locations, logits, offsets, labels).sum().backward()
    positive = labels > 0
    cross_entropy = torch.nn.functional.cross_entropy(logits.detach(), labels, reduction="none")
    used = positive | mine_negatives(cross_entropy, positive, 3)
    assert torch.equal(locations.grad.abs().sum(1) > 0, positive)
    assert torch.equal(logits.grad.abs().sum(1) > 0, used)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("what", ["locations", "logits"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_broken_output_is_never_masked(bad, what, empty):
    """Trap of the original: NaN was hidden from the ranking. Here one value anywhere, used or not, shows."""
    locations, logits, offsets, labels = random_inputs(3)
    if empty:
        labels[0], offsets[0] = 0, 0
    background = int((labels[0] == 0).nonzero()[0])
    whole = loss(locations, logits, offsets, labels)
    (locations if what == "locations" else logits)[0, 1, background] = bad
    value = loss(locations, logits, offsets, labels)
    if (what, bad) == ("logits", float("-inf")):  # an honest probability of zero for a class that is not the target
        assert value[0].isfinite()
    else:
        assert not value[0].isfinite()
    assert value[1] == whole[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    inputs = random_inputs(4)
    low = [x.to(dtype).requires_grad_() for x in inputs[:2]]
    value = loss(*low, *inputs[2:])
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(*(x.detach().float() for x in low), *inputs[2:]))
    value.sum().backward()
    assert all(x.grad.dtype == dtype and x.grad.isfinite().all() for x in low)


def test_large_half_logits_do_not_overflow():
    locations, logits, offsets, labels = random_inputs(5)
    logits = torch.full_like(logits, -6e4).half()
    logits[:, 0] = 6e4
    assert loss(locations, logits, offsets, labels).isfinite().all()


def test_layout_and_inputs_left_alone():
    inputs = random_inputs(6, batch=3)
    expected = loss(*inputs)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    assert not any(x.is_contiguous() for x in strided)
    assert torch.equal(loss(*strided), expected)
    assert all(torch.equal(x, y) for x, y in zip(inputs, random_inputs(6, batch=3), strict=True))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 60), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(seed, batch, positives, r):
    inputs = random_inputs(seed, batch=batch, positives=positives)
    value = loss(*inputs)
    assert value.isfinite().all()
    order = r.sample(range(batch), batch)
    torch.testing.assert_close(loss(*(x[order] for x in inputs)), value[order], rtol=1e-6, atol=0)


def test_negative_ratio():
    inputs = random_inputs(7)
    values = [loss(*inputs, negative_ratio=ratio) for ratio in (0, 1, 3)]
    assert (values[0] < values[1]).all()
    assert (values[1] < values[2]).all()
