"""Wrong overrides that once passed every case of `vendors check`: a case, or a closer look, was made for each of them.

Each is right for ordinary batches. Most of them are mistakes that a kernel's author makes: a type that is too small, a
layout that is taken for granted, a state that is kept in one place, an argument of 0 that is taken for "not given".
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from ssd.boxes import DefaultBoxes, iou
from ssd.conformance.case import GRADIENTS
from ssd.conformance.cases import batch_cases, cases_of, random_cases, small_case
from ssd.conformance.compare import Mismatch, compare
from ssd.conformance.inputs import some_defaults
from ssd.conformance.run import Plan, run_here
from ssd.conformance.state import exchanged, functions
from ssd.conformance.trial import trial
from ssd.ops import OP_NAMES, REFERENCE
from ssd.vendor import Override, load_vendor

CPU = torch.device("cpu")


def passes(case, function, way=trial) -> bool:
    try:
        return way(case, function, CPU).ok
    except (Mismatch, RuntimeError):
        return False


class BatchIsDense(torch.autograd.Function):
    """What one reads who takes it that images follow each other without a gap; gradients as ever."""

    @staticmethod
    def forward(ctx, x):
        return x.as_strided(x.shape, (x[0].numel(), *x.stride()[1:]), x.storage_offset()).clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def rewritten(op, old, new, **names):
    """The reference with a part of its source exchanged. names: what the new part uses besides."""
    module = sys.modules[f"ssd.ops.{op}"]
    source = inspect.getsource(module)
    assert old in source
    exec(compile(source.replace(old, new), module.__name__, "exec"), made := {"__name__": module.__name__})
    made |= {name: vars(module)[name] for name in ("Detections", "ColourDraws") if name in made} | names
    return made[op]


# --- augment ----------------------------------------------------------------------------------------------------------


def coarse_in_bfloat16(images, draws, **options):
    found = REFERENCE.augment(images, draws, **options)
    return (found.float() * 64).round().div(64).to(found.dtype) if found.dtype == torch.bfloat16 else found


def cut_off(x):
    """float32 (...) in bfloat16 as one gets it who keeps the upper 16 bits: each value is rounded towards 0."""
    return (x.contiguous().view(torch.int32) & -(2**16)).view(torch.float32).bfloat16()


def pixels_cut_off(images, draws, *, dtype=torch.float32, **options):
    if dtype != torch.bfloat16:
        return REFERENCE.augment(images, draws, dtype=dtype, **options)
    exact, found = (REFERENCE.augment(images, draws, dtype=one, **options) for one in (torch.float32, dtype))
    return found.copy_(cut_off(exact))


hue_of_much_chroma = rewritten("augment", "chroma.clamp(min=1e-12)", "chroma.clamp(min=3e-4)")
"""The chroma is at least 3e-4 where the hue is divided by it: no pixel of 8 bits has less before the jitter."""


def mirrored_by_one_word(images, draws, **options):
    """What is mirrored lies in a word of 32 bits, which is read again for the next 32 images."""
    if draws is not None:
        draws = replace(draws, flip=draws.flip[torch.arange(len(draws.flip)) % 32])
    return REFERENCE.augment(images, draws, **options)


def dense_draws(images, draws, **options):
    if draws is not None:
        factors = draws.factors.as_strided(draws.factors.shape, (4, 1), draws.factors.storage_offset())
        draws = replace(draws, factors=factors)
    return REFERENCE.augment(images, draws, **options)


def at_most_2_18_pixels(images, draws, **options):
    found = REFERENCE.augment(images, draws, **options)
    found.flatten(2)[..., 2**18 :] = 0
    return found


def rows_of_two_pixels_or_more(images, draws, **options):
    return REFERENCE.augment(images, draws, **options) * (1.01 if images.shape[2] == 1 else 1)


def without_draws_only_full_size(images, draws, **options):
    return REFERENCE.augment(images, draws, **options) * (1.01 if draws is None and images.shape[1] != 300 else 1)


# --- encode -----------------------------------------------------------------------------------------------------------


def far_boxes_clipped(boxes, *inputs, **options):
    return REFERENCE.encode(torch.where(boxes.isfinite(), boxes.clamp(-1, 2), boxes), *inputs, **options)


def labels_of_32_bits(boxes, labels, defaults, **options):
    return REFERENCE.encode(boxes, labels.int().long(), defaults, **options)


def own_defaults_to_match(boxes, labels, defaults, **options):
    return REFERENCE.encode(boxes, labels, some_defaults(len(defaults.xywh)), **options)


def full_last_block(boxes, labels, defaults, **options):
    offsets, targets = REFERENCE.encode(boxes, labels, defaults, **options)
    if targets.shape[1] % 512 == 0:
        offsets[..., -512:], targets[:, -512:] = 0, 0
    return offsets, targets


def first_256_places(boxes, labels, defaults, **options):
    return REFERENCE.encode(boxes[:, :256], labels[:, :256], defaults, **options)


def first_128_boxes(boxes, labels, defaults, **options):
    real = (labels > 0) & (boxes[..., 2:] > boxes[..., :2]).all(2)
    return REFERENCE.encode(boxes, labels * (real.cumsum(1) <= 128), defaults, **options)


def of_tiles(overlap):
    """Largest overlaps and their ground truths, found in tiles of 32: of equal tiles the last one counts."""
    tiles = functional.pad(overlap, (0, 0, 0, -overlap.shape[1] % 32), value=-2.0).unflatten(1, (-1, 32))
    most, within = tiles.max(2)
    largest, from_last = most.flip(1).max(1)
    tile = most.shape[1] - 1 - from_last
    return largest, 32 * tile + within.gather(1, tile.unsqueeze(1)).squeeze(1)


tiles_of_places = rewritten("encode", "overlap.max(dim=1)", "of_tiles(overlap)", of_tiles=of_tiles)


def offsets_without_layout(boxes, labels, defaults, **options):
    offsets, targets = REFERENCE.encode(boxes, labels, defaults, **options)
    return offsets.transpose(1, 2).contiguous().transpose(1, 2), targets


# --- loss -------------------------------------------------------------------------------------------------------------


class Backward(torch.autograd.Function):
    """The reference whose backward pass `spoil` changes: spoil(weights, gradient of one input) -> gradient."""

    @staticmethod
    def forward(ctx, locations, logits, offsets, labels, options, spoil):
        with torch.enable_grad():
            given = locations.detach().requires_grad_(), logits.detach().requires_grad_()
            ctx.kept, ctx.spoil = (REFERENCE.loss(*given, offsets, labels, **options), given), spoil
        return ctx.kept[0].detach()

    @staticmethod
    def backward(ctx, weights):
        weights, spoil = ctx.spoil(weights)
        return *(spoil(one) for one in torch.autograd.grad(*ctx.kept, weights)), None, None, None, None


def spoiled(of_weights=lambda w: w, of_gradient=lambda g: g):
    def loss(*inputs, **options):
        return Backward.apply(*inputs, options, lambda weights: (of_weights(weights), of_gradient))

    return loss


def largest(gradient):
    return gradient.abs().flatten(1).amax(1).view(-1, 1, 1)


small_images_forgotten = spoiled(of_gradient=lambda g: torch.where(largest(g) < 1e-6 * largest(g).max(), 0.0, g))
unlikely_classes_forgotten = spoiled(
    of_gradient=lambda g: torch.where((g.abs() < 2**-8 * largest(g)) & (g.dtype == torch.bfloat16), 0.0, g).to(g.dtype)
)
dense_weights = spoiled(lambda w: torch.eye(len(w))[0] * w if w.stride() == (0,) else w)
positive_weights = spoiled(torch.abs)
not_a_number_for_all = spoiled(of_gradient=lambda g: g + g.sum() * 0 if len(g) == 4 else g)
latest = {}


class OneState(torch.autograd.Function):
    """The reference, whose forward pass leaves its state for the backward pass in one place."""

    @staticmethod
    def forward(ctx, locations, logits, offsets, labels, options):
        with torch.enable_grad():
            given = locations.detach().requires_grad_(), logits.detach().requires_grad_()
            latest["state"] = REFERENCE.loss(*given, offsets, labels, **options), given
        return latest["state"][0].detach()

    @staticmethod
    def backward(ctx, weights):
        return *torch.autograd.grad(*latest["state"], weights, retain_graph=True), None, None, None


def one_state(*inputs, **options):
    return OneState.apply(*inputs, options)


class Narrow(torch.autograd.Function):
    """A short format as float32, exactly, whose gradient `narrow` makes short again."""

    @staticmethod
    def forward(ctx, x, narrow):
        ctx.narrow = narrow
        return x.float()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.narrow(gradient), None


def narrowed(short, narrow):
    def loss(locations, logits, *targets, **options):
        if logits.dtype == short:
            locations, logits = Narrow.apply(locations, narrow), Narrow.apply(logits, narrow)
        return REFERENCE.loss(locations, logits, *targets, **options)

    return loss


gradients_cut_off = narrowed(torch.bfloat16, cut_off)
never_infinite = narrowed(torch.float16, lambda g: g.clamp(-65504, 65504).half())


def infinite_background_hidden(locations, logits, offsets, labels, **options):
    hidden = locations.isinf() & (labels == 0).unsqueeze(1)
    return REFERENCE.loss(locations.masked_fill(hidden, 0.0), logits, offsets, labels, **options)


def positive_by_offsets(locations, logits, offsets, labels, **options):
    return REFERENCE.loss(locations, logits, offsets, labels * (offsets != 0).any(1), **options)


def labels_of_7_bits(locations, logits, offsets, labels, **options):
    return REFERENCE.loss(locations, logits, offsets, labels.clamp(max=127), **options)


def labels_of_8_bits(locations, logits, offsets, labels, **options):
    return REFERENCE.loss(locations, logits, offsets, labels % 256, **options)


def in_tiles(op):
    """Softmax in tiles of 16 classes. In a tile of minus infinity alone, exp(-inf - -inf) is not a number."""

    def tiled(locations, logits, *others, **options):
        filled = functional.pad(logits.detach(), (0, 0, 0, -logits.shape[1] % 16), value=float("-inf"))
        broken = filled.unflatten(1, (-1, 16)).isneginf().all(2).any(1, keepdim=True)
        return getattr(REFERENCE, op)(locations, logits.masked_fill(broken, float("nan")), *others, **options)

    return tiled


def of_one_sum(logits, labels):
    """Cross-entropy whose gradients are exp(logit - log_sum), of one float32 for the largest logit and the rest."""
    one = logits.logsumexp(1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return functional.cross_entropy(logits, labels, reduction="none").detach() + (one - one.detach())


cross_entropy = 'F.cross_entropy(logits.float(), labels, reduction="none")'
shares_of_one_sum = rewritten("loss", cross_entropy, "of_one_sum(logits.float(), labels)", of_one_sum=of_one_sum)


def no_ratio_of_0(*inputs, negative_ratio=3):
    return REFERENCE.loss(*inputs, negative_ratio=negative_ratio or 3)


def hardly_more(*inputs, **options):
    return REFERENCE.loss(*inputs, **options) + 5e-6


def infinite_is_not_a_number(*inputs, **options):
    loss = REFERENCE.loss(*inputs, **options)
    return torch.where(loss.isinf(), float("nan"), loss)


def dense_batch(locations, logits, *targets, **options):
    return REFERENCE.loss(BatchIsDense.apply(locations), BatchIsDense.apply(logits), *targets, **options)


def loss_of_full_blocks(locations, logits, offsets, labels, **options):
    end = labels.shape[1] - (512 if labels.shape[1] % 512 == 0 else 0)
    cut = torch.arange(labels.shape[1]) < max(end, 1)
    return REFERENCE.loss(locations, logits, offsets, labels * cut, **options)


class Dense(torch.autograd.Function):
    """What one reads who takes a tensor for contiguous, from so many elements before it; gradients as ever."""

    @staticmethod
    def forward(ctx, x, before=0):
        dense = torch.empty(x.shape, device="meta").stride()
        return x.as_strided(x.shape, dense, x.storage_offset() - before).clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def dense_where(told, before=lambda x: 0):
    """The loss of one who takes for contiguous what is told to be so."""

    def loss(locations, logits, *targets, **options):
        locations, logits = (Dense.apply(x, before(x)) if told(x) else x for x in (locations, logits))
        return REFERENCE.loss(locations, logits, *targets, **options)

    return loss


dense_images = dense_where(lambda x: x.stride()[1:] == (x.shape[2], 1))
dense_halves = dense_where(lambda x: x.dtype == torch.float16 and x.stride(1) > x.stride(2))
dense_rows = dense_where(lambda x: x.stride(2) == 1)
whole_addresses = dense_where(torch.Tensor.is_contiguous, lambda x: x.data_ptr() % 16 // x.element_size())
"""Read in words of 16 bytes. Some devices drop the lowest bits of an address that is not whole."""


def locations_tell_the_layout(locations, logits, *targets, **options):
    logits = Dense.apply(logits) if locations.is_contiguous() else logits
    return REFERENCE.loss(locations, logits, *targets, **options)


def boxes_tell_the_layout(boxes, labels, defaults, **options):
    return REFERENCE.encode(boxes, Dense.apply(labels) if boxes.is_contiguous() else labels, defaults, **options)


class WeightedInPlace(torch.autograd.Function):
    """The reference, whose gradients are computed with the loss, and weighted in their own memory later."""

    @staticmethod
    def forward(ctx, locations, logits, offsets, labels, options):
        with torch.enable_grad():
            given = locations.detach().requires_grad_(), logits.detach().requires_grad_()
            losses = REFERENCE.loss(*given, offsets, labels, **options)
            ctx.gradients = torch.autograd.grad(losses.sum(), given)
        return losses.detach()

    @staticmethod
    def backward(ctx, weights):
        return *(one.mul_(weights.view(-1, 1, 1)) for one in ctx.gradients), None, None, None


def weighted_in_place(*inputs, **options):
    return WeightedInPlace.apply(*inputs, options)


def nothing_without_gradients(*inputs, **options):
    loss = REFERENCE.loss(*inputs, **options)
    return loss if loss.requires_grad else loss * 0


def shares_of_tiles(locations, logits, offsets, labels, *, negative_ratio=3):
    """Mined in two stages: each 1,024 default boxes hand on 128 more of the hardest than twice their fair share."""
    count, tile = labels.shape[1], 1024
    positive = labels > 0
    entropy = functional.cross_entropy(logits.float(), labels, reduction="none")
    distance = functional.smooth_l1_loss(locations.float(), offsets, reduction="none").sum(1)
    quota = (negative_ratio * positive.sum(1, keepdim=True)).clamp(max=count)
    score = functional.pad(entropy.detach().masked_fill(positive, -1.0), (0, -count % tile), value=-2.0)
    tiles = score.view(len(labels), -1, tile)
    place = tiles.argsort(dim=2, descending=True, stable=True).argsort(dim=2, stable=True)
    handed_on = place < (128 + 2 * quota * tile / count).unsqueeze(2)
    score = tiles.where(handed_on, -1.5).flatten(1)[:, :count]
    mined = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True) < quota
    total = (distance * positive + entropy * (positive | (mined & (score >= 0)))).sum(1)
    return total / positive.sum(1).clamp(min=1)


def differentiable_by_locations(locations, logits, *targets, **options):
    loss = REFERENCE.loss(locations, logits, *targets, **options)
    return loss if locations.requires_grad else loss.detach() + 0 * logits.sum()


# --- detect -----------------------------------------------------------------------------------------------------------


def changed(**functions):
    """The reference with functions of its module changed: each gets the original and its arguments."""
    module = sys.modules["ssd.ops.detect"]

    def detect(*inputs, **options):
        with pytest.MonkeyPatch.context() as patch:
            for name, change in functions.items():
                original = getattr(module, name)
                patch.setattr(module, name, lambda *a, original=original, change=change: change(original(*a)))
            return REFERENCE.detect(*inputs, **options)

    return detect


def best_class_alone(found):
    """Beyond the first image, a default box is a candidate for its best class only, the lowest of equal ones."""
    box = found.image * 10_000 + found.default
    order = box[found.score.argsort(descending=True, stable=True)].argsort(stable=True)
    rows = found.score.argsort(descending=True, stable=True)[order]
    first = torch.ones_like(rows, dtype=torch.bool)
    first[1:] = box[rows][1:] != box[rows][:-1]
    keep = torch.zeros_like(first).index_put((rows,), first)
    return found[keep | (found.image == 0)]


def best_four_classes(found):
    """A default box is a candidate for its best four classes only."""
    box = found.image * 10_000 + found.default
    order = found.score.argsort(descending=True, stable=True)
    order = order[box[order].argsort(stable=True)]
    best = sys.modules["ssd.ops.detect"]._rank_in_runs(box[order]) < 4
    return found[torch.zeros_like(best).index_put((order,), best)]


def buffer_of_8192(found):
    """Candidates of a class beyond 8,192 find no place."""
    return found[sys.modules["ssd.ops.detect"]._rank_in_runs(found.image * 10_000 + found.label) < 8192]


four_classes_a_box = changed(_over_threshold=best_four_classes)
full_buffer = changed(_over_threshold=buffer_of_8192)
one_class_a_box = changed(_over_threshold=best_class_alone)
never_certain = changed(_over_threshold=lambda found: found[found.score < 1])


by_default, by_class = "(found.default * num_classes + found.label)", "found.label // 16 * 10**6"
tiles_of_classes = rewritten("detect", by_default, f"({by_class} + {by_default})")
"""Of equal scores those of the first 16 classes come first, whatever their default boxes are."""


def survivors_of_1024(*inputs, **options):
    """What NMS leaves of an image finds places for 1,024, class after class."""
    module, classes = sys.modules["ssd.ops.detect"], inputs[1].shape[1]
    survives = module._survives_nms

    def stored(boxes, group, *rest):
        keep = survives(boxes, group, *rest)
        late = module._rank_in_runs(group[keep] // classes) >= 1024
        return keep.index_put((keep.nonzero()[late].squeeze(1),), torch.tensor(False))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_survives_nms", stored)
        return REFERENCE.detect(*inputs, **options)


def other_overlaps(change):
    """The reference whose NMS sees the overlaps of changed boxes: change(overlap, boxes (..., K, 4)) -> overlap."""

    def detect(*inputs, **options):
        module = sys.modules["ssd.ops.detect"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "iou", lambda a, b: change(iou, a))
            return REFERENCE.detect(*inputs, **options)

    return detect


def in_15_bits(overlap, boxes):
    boxes = ((boxes.contiguous().view(torch.int32) + 2**8) & -(2**9)).view(torch.float32)
    return overlap(boxes, boxes)


def union_of_a_pixel(overlap, boxes):
    """The union is at least 1e-5, so that nobody divides by 0: a pixel's area is 1.1e-5."""
    found, area = overlap(boxes, boxes), (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    union = (area.unsqueeze(-1) + area.unsqueeze(-2)) / (1 + found)
    return found * (union / 1e-5).clamp(max=1)


boxes_of_15_bits = other_overlaps(in_15_bits)
no_union_below_a_pixel = other_overlaps(union_of_a_pixel)


def classes_side_by_side(*inputs, **options):
    """NMS of all classes at once, whose boxes are moved apart by 4 a class, as batched_nms of torchvision does."""
    module, classes = sys.modules["ssd.ops.detect"], inputs[1].shape[1]
    survives = module._survives_nms

    def moved(boxes, group, *rest):
        return survives(boxes + 4.0 * (group % classes).unsqueeze(1), group, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_survives_nms", moved)
        return REFERENCE.detect(*inputs, **options)


def count_of_last_forgotten(*inputs, **options):
    found = REFERENCE.detect(*inputs, **options)
    count = found.count.clone()
    if len(count) > 1 and count[-1] == 0:
        count[-1] = count[-2]
    return replace(found, count=count)


def boxes_of_two_digits(*inputs, **options):
    found = REFERENCE.detect(*inputs, **options)
    return replace(found, boxes=found.boxes.clamp(-100, 100))


def at_most_300(*inputs, max_candidates=200, **options):
    return REFERENCE.detect(*inputs, max_candidates=min(max_candidates, 300), **options)


def two_candidates_or_more(*inputs, max_candidates=200, **options):
    return REFERENCE.detect(*inputs, max_candidates=max(max_candidates, 2), **options)


def no_threshold_of_0(*inputs, score_threshold=0.05, **options):
    return REFERENCE.detect(*inputs, score_threshold=score_threshold or 0.05, **options)


def no_overlap_of_0(*inputs, nms_overlap=0.5, **options):
    return REFERENCE.detect(*inputs, nms_overlap=nms_overlap or 0.5, **options)


def no_suppression_at_1(*inputs, nms_overlap=0.5, **options):
    return REFERENCE.detect(*inputs, nms_overlap=2.0 if nms_overlap >= 1 else nms_overlap, **options)


def classes_of_7_bits(*inputs, **options):
    found = REFERENCE.detect(*inputs, **options)
    return replace(found, labels=found.labels.clamp(max=127))


def classes_of_8_bits(*inputs, **options):
    found = REFERENCE.detect(*inputs, **options)
    return replace(found, labels=found.labels % 256)


def not_in_inference_mode(locations, logits, defaults, **options):
    assert locations._version >= 0
    return REFERENCE.detect(locations, logits, defaults, **options)


GAPS = [
    ("augment", coarse_in_bfloat16, "B=3, bfloat16"),
    ("augment", pixels_cut_off, "no draws, bfloat16"),
    ("augment", hue_of_much_chroma, "almost grey"),
    ("augment", dense_draws, "parts of larger tensors"),
    ("augment", at_most_2_18_pixels, "a large image"),
    ("augment", rows_of_two_pixels_or_more, "one column"),
    ("augment", without_draws_only_full_size, "no draws, parts of larger tensors"),
    ("encode", far_boxes_clipped, "boxes beyond the image"),
    ("encode", labels_of_32_bits, "labels of 34 bits"),
    ("encode", own_defaults_to_match, "other default boxes"),
    ("encode", full_last_block, "512 default boxes"),
    ("encode", full_last_block, "8,192 default boxes"),
    ("encode", first_256_places, "260 places"),
    ("encode", first_128_boxes, "264 boxes"),
    ("encode", tiles_of_places, "264 boxes"),
    ("encode", boxes_tell_the_layout, "only labels in a larger tensor"),
    ("loss", locations_tell_the_layout, "only logits in a larger tensor"),
    ("loss", dense_images, "gaps between images alone"),
    ("loss", dense_rows, "gaps between rows alone"),
    ("loss", whole_addresses, "dense, and at an odd address"),
    ("loss", weighted_in_place, "gradients taken twice"),
    ("loss", nothing_without_gradients, "no gradients"),
    ("loss", differentiable_by_locations, "gradients of logits alone"),
    ("loss", small_images_forgotten, "gradients of very different sizes"),
    ("loss", unlikely_classes_forgotten, "gradients against float64, bfloat16"),
    ("loss", dense_weights, "gradient of a mean"),
    ("loss", positive_weights, "weights of both signs"),
    ("loss", not_a_number_for_all, "outputs that are not numbers"),
    ("loss", one_state, "another call before the backward pass"),
    ("loss", gradients_cut_off, "gradients against float64, bfloat16"),
    ("loss", never_infinite, "a loss scaler that is too large"),
    ("loss", infinite_background_hidden, "losses that are infinite"),
    ("loss", positive_by_offsets, "offsets that do not tell"),
    ("loss", labels_of_7_bits, "1,024 classes"),
    ("loss", labels_of_8_bits, "1,024 classes"),
    ("loss", in_tiles("loss"), "logits of minus infinity"),
    ("loss", shares_of_one_sum, "logits that differ little, in thousands"),
    ("loss", no_ratio_of_0, "negative_ratio 0"),
    ("loss", hardly_more, "near 0"),
    ("loss", infinite_is_not_a_number, "losses that are infinite"),
    ("loss", dense_batch, "parts of larger tensors"),
    ("loss", shares_of_tiles, "hard negatives that lie together"),
    ("loss", dense_halves, "parts of larger tensors, float16"),
    ("loss", loss_of_full_blocks, "512 default boxes"),
    ("detect", one_class_a_box, "several classes of one default box"),
    ("detect", four_classes_a_box, "9 classes, and most of them count"),
    ("detect", four_classes_a_box, "81 classes that all count"),
    ("detect", tiles_of_classes, "81 classes that all count"),
    ("detect", survivors_of_1024, "81 classes that all count"),
    ("detect", full_buffer, "8,732 candidates of a class"),
    ("detect", never_certain, "scores of exactly 1"),
    ("detect", boxes_of_15_bits, "overlaps close to the limit"),
    ("detect", classes_side_by_side, "overlaps close to the limit"),
    ("detect", no_union_below_a_pixel, "boxes of a pixel and less"),
    ("detect", count_of_last_forgotten, "images of none, many and one"),
    ("detect", boxes_of_two_digits, "far away"),
    ("detect", at_most_300, "a chain of 512 boxes"),
    ("detect", two_candidates_or_more, "max_candidates 1"),
    ("detect", no_threshold_of_0, "score_threshold 0"),
    ("detect", no_overlap_of_0, "nms_overlap 0"),
    ("detect", no_suppression_at_1, "nms_overlap 1"),
    ("detect", classes_of_7_bits, "300 classes"),
    ("detect", classes_of_8_bits, "300 classes"),
    ("detect", in_tiles("detect"), "300 classes"),
    ("detect", not_in_inference_mode, "inference mode"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "function", "words"), GAPS)
def test_what_once_passed_is_red_in_a_case_of_its_own(op: str, function, words: str) -> None:
    cases = [case for case in cases_of(op) if words in case.name]
    assert cases
    assert not all(passes(case, function) for case in cases)


@pytest.mark.parametrize("batch", [33, 130])
def test_what_repeats_after_32_images_is_red_in_a_larger_batch(batch: int) -> None:
    [case] = [one for one in batch_cases("augment", 130, full=False) if one.name.startswith(f"batch {batch},")]
    assert not passes(case, mirrored_by_one_word)
    assert passes(case, REFERENCE.augment)


def test_what_passes_ordinary_batches_and_what_does_not() -> None:
    # The default boxes of a case change from call to call, so who has some of his own is found by every case.
    red = {function.__name__ for op, function, _ in GAPS if not passes(small_case(op), function)}
    assert red == {"own_defaults_to_match"}


@pytest.mark.parametrize("op", ["encode", "detect"])
def test_default_boxes_that_are_kept_from_the_first_call(op: str) -> None:
    kept: dict[int, DefaultBoxes] = {}

    def keeps(*inputs, **options):
        *rest, defaults = inputs
        own = DefaultBoxes(defaults.xywh.clone(), defaults.ltrb.clone())
        return getattr(REFERENCE, op)(*rest, kept.setdefault(len(own.xywh), own), **options)

    assert passes(small_case(op), keeps, compare)
    kept.clear()
    assert not passes(small_case(op), keeps)


def test_a_result_that_is_kept_while_torch_counts_no_change() -> None:
    kept = {}

    def by_version(boxes, labels, defaults, **options):
        key = [(x.data_ptr(), x._version) for x in (boxes, labels, defaults.xywh, defaults.ltrb)]
        if kept.get("key") != key:
            kept.update(key=key, result=REFERENCE.encode(boxes, labels, defaults, **options))
        return tuple(value.clone() for value in kept["result"])

    assert passes(small_case("encode"), by_version, compare)
    assert not passes(small_case("encode"), by_version)


def test_gradients_of_the_loss_that_are_written_to() -> None:
    class Halves(torch.autograd.Function):
        @staticmethod
        def forward(ctx, losses):
            return losses.clone()

        @staticmethod
        def backward(ctx, weights):
            gradient = weights.clone()
            weights.mul_(0.5)
            return gradient

    with pytest.raises(Mismatch, match="wrote to the gradient of its loss"):
        trial(small_case("loss"), lambda *inputs, **options: Halves.apply(REFERENCE.loss(*inputs, **options)), CPU)


def test_results_of_another_type() -> None:
    def anything(*inputs, **options):
        return SimpleNamespace(**vars(REFERENCE.detect(*inputs, **options)))

    with pytest.raises(Mismatch, match="type SimpleNamespace, not Detections"):
        compare(small_case("detect"), anything, CPU)
    with pytest.raises(Mismatch, match="type list, not tuple"):
        compare(small_case("encode"), lambda *i, **o: list(REFERENCE.encode(*i, **o)), CPU)
    with pytest.raises(Mismatch, match="asks for gradients"):
        compare(small_case("augment"), lambda *i, **o: REFERENCE.augment(*i, **o).requires_grad_(), CPU)


@pytest.mark.parametrize("when", ["loading the override exchanged", "the override exchanged"])
def test_functions_of_others_that_are_exchanged(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    softmax = functional.cross_entropy

    def faster(*inputs, **options):
        return softmax(*inputs, **options) * 1.001

    def load(means):
        if when.startswith("loading"):
            monkeypatch.setattr(functional, "cross_entropy", faster)
        return loss

    def loss(*inputs, **options):
        monkeypatch.setattr(functional, "cross_entropy", faster)
        return REFERENCE.loss(*inputs, **options)

    override = Override("loss", "faster", "mine", load, lambda: ["emulator"])
    [row] = run_here(load_vendor("cpu"), override, "emulator", Plan(case="no gradients"))
    assert (row.ok, row.note) == (False, f"{when} torch.nn.functional.cross_entropy")


def test_what_torch_wraps_itself_is_not_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    before = functions()
    monkeypatch.setattr(torch, "manual_seed", torch._disable_dynamo(torch.manual_seed))
    assert exchanged(before) == []
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    assert exchanged(before) == ["torch.manual_seed"]


def test_offsets_are_contiguous_as_promised() -> None:
    outcome = compare(small_case("encode"), offsets_without_layout, CPU)
    assert (outcome.output, outcome.ok) == ("layout", False)


def test_memory_that_nobody_wrote_may_hold_the_number_of_a_box() -> None:
    def none_unless_written(boxes, labels, defaults, **options):
        offsets, targets = REFERENCE.encode(boxes, labels, defaults, **options)
        best = torch.empty(labels.shape[0], dtype=torch.int32)
        offsets[:, 0, 0] += (best == 0).float()
        return offsets, targets

    assert not passes(small_case("encode"), none_unless_written)


def test_results_that_are_on_another_device() -> None:
    def elsewhere(*inputs, **options):
        found = REFERENCE.detect(*inputs, **options)
        return replace(found, labels=found.labels.to("meta"))

    with pytest.raises(Mismatch, match="labels is on meta, not on cpu"):
        trial(small_case("detect"), elsewhere, CPU)


def test_random_cases_draw_what_fixed_ones_only_sample() -> None:
    names = {op: " | ".join(case.name for seed in range(6) for case in random_cases(op, seed)) for op in OP_NAMES}
    assert "no draws" in names["augment"]
    assert all("apart" in name and "strided" in name for name in names.values())
    losses = [case for seed in range(6) for case in random_cases("loss", seed)]
    assert {case.gradients for case in losses} == set(GRADIENTS)
    assert {len(case.weights) == 1 for case in losses} == {True, False}
    assert any(weight < 0 for case in losses for weight in case.weights)
