"""The fixed cases of each op, the same in every run: ordinary batches, each precision and layout, edges and ties.

`quick` marks the few cases that a test suite runs. Each case that says "small" or names few default boxes costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from ssd.boxes import NUM_DEFAULTS, default_boxes
from ssd.conformance import detect_edges, edges, inputs
from ssd.conformance.case import Case, Make, augment_case, crop_case, detect_case, encode_case, loss_case
from ssd.conformance.exact import exact_loss

__all__ = ["FIXED"]

BF16, FP16 = torch.bfloat16, torch.float16
TENSORS = {
    "augment": ("images", "flip", "factors", "order"), "encode": ("boxes", "labels", "xywh", "ltrb"),
    "loss": ("locations", "logits", "offsets", "labels"), "detect": ("locations", "logits", "xywh", "ltrb"),
    "crop": ("slots", "rectangles", "luma", "starts of luma", "widths of luma", "chroma", "starts of chroma",
             "widths of chroma"),
}  # fmt: skip
"""The tensors of each op's inputs, in the order of its arguments."""
GAPS = {"augment": ("images", "rows", "pixels"), "encode": ("images", "rows"), "loss": ("images", "rows"),
        "detect": ("images", "rows"), "crop": ("rows",)}  # fmt: skip
"""What follows each other in the first dimensions of an op's inputs."""


def _layouts(op: str, case: Callable[..., Case], make: Make) -> list[Case]:
    """Cases where one tensor of an op is in a larger one, where gaps are in one dimension, and with none of both."""
    apart = partial(partial, inputs.apart, make)
    return [
        *(case(f"only {name} in a larger tensor", apart({place})) for place, name in enumerate(TENSORS[op])),
        *(case(f"gaps between {name} alone", apart(gaps={place})) for place, name in enumerate(GAPS[op])),
        case("dense, and at an odd address", apart(gaps=())),
    ]


def _augment() -> list[Case]:
    bf16, fp16, images, bare = {"dtype": BF16}, {"dtype": FP16}, inputs.images, inputs.only_images
    return [
        augment_case("B=3, float32, contiguous", partial(images, 3), {}, quick=True),
        augment_case("B=3, bfloat16, channels last, 4 channels", partial(images, 3, seed=2),
                     bf16 | {"channels_last": True, "channels": 4}, quick=True),
        augment_case("B=3, float16, channels last", partial(images, 3, seed=3), fp16 | {"channels_last": True}),
        augment_case("B=1, bfloat16, contiguous, 4 channels", partial(images, 1, seed=4), bf16 | {"channels": 4}),
        augment_case("jitter at its bounds", edges.extremes, {}),
        augment_case("jitter at its bounds, float16", edges.extremes, fp16),
        augment_case("every order of the operations", edges.every_order, {}),
        augment_case("hues turned by whole sixths", edges.hues_in_sixths, {}),
        augment_case("images that are almost grey", edges.almost_grey, {}),
        augment_case("images of one colour", edges.plain_colours, {}),
        augment_case("one pixel", partial(images, 4, seed=8, height=1, width=1), {}),
        augment_case("one row", partial(images, 3, seed=9, height=1, width=9), bf16),
        augment_case("one column", partial(images, 3, seed=10, height=9, width=1), {"channels_last": True}),
        augment_case("a large image", partial(images, 1, seed=11, height=271, width=1301), {}),
        augment_case("non-contiguous images", partial(images, 2, strided=True, seed=5), {"channels_last": True}),
        augment_case("parts of larger tensors", partial(inputs.apart, partial(images, 3, seed=12, height=9, width=11)),
                     {}),
        augment_case("no draws (evaluation)", partial(bare, partial(images, 2, seed=6)), {}),
        augment_case("no draws, bfloat16, channels last", partial(bare, partial(images, 1)),
                     bf16 | {"channels_last": True}),
        augment_case("no draws, float16, 4 channels", partial(bare, partial(images, 3, seed=7)),
                     fp16 | {"channels": 4}),
        augment_case("no draws, parts of larger tensors",
                     partial(inputs.apart, partial(bare, partial(images, 2, seed=13, height=7, width=10))), {}),
        augment_case("no draws, inference mode", partial(bare, partial(images, 2, seed=14, height=7, width=10)), bf16,
                     inference=True),
        *_layouts("augment", partial(augment_case, options={}), partial(images, 3, seed=15, height=9, width=11)),
    ]  # fmt: skip


def _no_truth() -> tuple[torch.Tensor, torch.Tensor, object]:
    return torch.zeros(2, 3, 4), torch.zeros(2, 3).long(), default_boxes()


def _encode() -> list[Case]:
    nan, inf, truth, these = float("nan"), float("inf"), inputs.truth, edges.these
    broken = partial(these, (0.2, 0.2, 0.2, 0.6), (0.5, 0.5, 0.4, 0.6), (nan, 0.1, 0.4, 0.4), (0.1, 0.1, inf, 0.3),
                     (0.3, 0.4, 0.6, 0.4), (0.3, 0.7, 0.6, 0.4), (0.1, 0.1, 0.5, 0.5))  # fmt: skip
    one = (0.1, 0.15, 0.45, 0.6)
    return [
        encode_case("B=3, 9 places", partial(truth, 3, 9), quick=True),
        encode_case("B=1, 40 places", partial(truth, 1, 40, seed=1)),
        encode_case("no box: no place", partial(truth, 2, 0), quick=True),
        encode_case("no box: padding only", _no_truth),
        encode_case("padding that has a box", edges.boxes_of_padding),
        encode_case("padding that is not finite; an image of nothing else", edges.broken_padding),
        encode_case("1 box", partial(these, (0.3, 0.4, 0.5, 0.9))),
        encode_case("1 box, tiny", partial(these, (0.501, 0.501, 0.503, 0.504))),
        encode_case("every default box positive", partial(truth, 1, 5, seed=2), criteria=-0.5),
        encode_case("ties", edges.claims, quick=True),
        encode_case("ties: as far from two default boxes", edges.between_defaults),
        encode_case("ties: an overlap of exactly the criteria", partial(these, one),
                    criteria=edges.overlap_of_a_default(torch.tensor(one))),
        encode_case("ties: a crowd of equal boxes, criteria 0", edges.crowd, criteria=0.0),
        encode_case("ties: each default box twice", partial(edges.twins, partial(truth, 2, 7, seed=12))),
        encode_case("boxes without area, NaN, infinite", broken),
        encode_case("boxes beyond the image, and far from all default boxes", edges.beyond_the_image),
        encode_case("boxes at the image's borders", edges.at_the_borders),
        encode_case("sides whose product is 0 in float32", partial(these, (0.0, 0.0, 1e-30, 1e-30), one)),
        encode_case("150 places", partial(truth, 1, 150, seed=6, defaults=301)),
        encode_case("260 places, most of them padding", partial(edges.in_some_places, 260, 20)),
        encode_case("264 boxes, and no padding", partial(edges.in_some_places, 264, 1), criteria=0.1),
        encode_case("labels of 34 bits", edges.large_labels),
        encode_case("other default boxes",
                    partial(edges.with_other_defaults, partial(truth, 2, 7, seed=7, defaults=301))),
        encode_case("1 default box", partial(truth, 2, 4, seed=8, defaults=1)),
        encode_case("512 default boxes: the last block is full", partial(truth, 2, 4, seed=9, defaults=512)),
        encode_case("8,192 default boxes: the last block is full", partial(truth, 1, 4, seed=14, defaults=8192)),
        encode_case("non-contiguous boxes", partial(truth, 3, 5, seed=3, strided=True)),
        encode_case("parts of larger tensors", partial(inputs.apart, partial(truth, 2, 6, seed=11, defaults=301))),
        encode_case("the original's epsilon", partial(truth, 1, 6, seed=4), epsilon=1e-5),
        *_layouts("encode", encode_case, partial(truth, 2, 6, seed=13, defaults=301)),
    ]  # fmt: skip


def _loss() -> list[Case]:
    predictions, few = inputs.predictions, partial(inputs.predictions, classes=5, defaults=301)
    exact = partial(loss_case, exact=exact_loss)
    return [
        loss_case("B=3, 81 classes; one image without positives", partial(predictions, [7, 0, 63]), quick=True),
        loss_case("bfloat16", partial(predictions, [12, 300], 81, seed=1), BF16, quick=True),
        loss_case("float16", partial(predictions, [12, 300], 81, seed=2), FP16),
        # A gradient must be weighted before it is rounded to float16: else what the scaler saves is lost already.
        loss_case("float16, weighted by a loss scaler", partial(predictions, [12, 300], 81, seed=2), FP16,
                  weights=(4096.0, 8192.0)),
        # A scaler finds that it is too large by what is infinite: float16 ends at 65504, and nothing may stop there.
        loss_case("float16, weighted by a loss scaler that is too large", partial(few, [20, 3], seed=35), FP16,
                  weights=(2.0**22, 2.0**24)),
        loss_case("no box in the batch", partial(predictions, [0, 0], seed=3)),
        loss_case("1 positive, B=1", partial(predictions, [1], seed=4)),
        loss_case("every default box positive", partial(predictions, [NUM_DEFAULTS], seed=5)),
        loss_case("positives and their negatives are more than all", partial(predictions, [2600], seed=6)),
        loss_case("ties: one score for all", partial(predictions, [40, 5], 81, tied=True, seed=7), quick=True),
        loss_case("ties: two scores, the cut among the higher", partial(edges.two_scores, 50, 1000)),
        loss_case("ties: two scores, the cut among the lower", partial(edges.two_scores, 50, 100)),
        # 32 and one unit in its last place, which is 1: the cross-entropy to the last bit, whatever computes it.
        loss_case("ties: scores whose last bit is 1", partial(edges.two_scores, 50, 1000, 32 + 2.0**-18)),
        loss_case("ties at 0: logits so far apart that many scores vanish",
                  partial(predictions, [500], 3, scale=80.0, seed=8)),
        loss_case("hard negatives that lie together", edges.hard_runs),
        loss_case("logits of minus infinity, and in thousands", edges.far_logits),
        loss_case("logits of minus infinity, and in thousands, bfloat16", edges.far_logits, BF16),
        loss_case("logits that differ little, in thousands", edges.logits_far_from_0),
        loss_case("locations far from their targets", edges.far_locations),
        replace(exact("near 0: all is known well", edges.confident),
                tolerance={"loss": 1e-6, "grad_locations": 1e-4, "grad_logits": 2e-3}),
        loss_case("offsets that do not tell what is positive", edges.offsets_that_tell_nothing),
        loss_case("negative_ratio 0", partial(few, [30, 4], seed=12), negative_ratio=0),
        loss_case("negative_ratio 1", partial(few, [30, 4], seed=13), negative_ratio=1),
        loss_case("negative_ratio 7", partial(predictions, [30, 4], 5, seed=14), negative_ratio=7),
        loss_case("negative_ratio 100: every negative", partial(few, [30, 4], seed=18), negative_ratio=100),
        loss_case("non-contiguous inputs", partial(predictions, [20, 3], 21, seed=9, strided=True)),
        loss_case("parts of larger tensors, float16", partial(inputs.apart, partial(few, [20, 3], seed=20)), FP16),
        loss_case("2 classes", partial(few, [20, 3], classes=2, seed=21)),
        loss_case("1,024 classes, the first and the last of them", partial(edges.last_class, 1024)),
        loss_case("1 default box", partial(few, [1, 0, 1], seed=22, defaults=1)),
        loss_case("512 default boxes: the last block is full", partial(few, [20, 3], seed=23, defaults=512)),
        loss_case("8,192 default boxes: the last block is full", partial(few, [20], seed=24, defaults=8192)),
        # What the gradients of a broken image are is nobody's promise; those of the others are held.
        loss_case("outputs that are not numbers", partial(predictions, [5, 0, 0, 3], 21, seed=10, broken=True)),
        loss_case("losses that are infinite", edges.infinite_losses),
        loss_case("gradient of a mean: one weight for all", partial(few, [20, 3, 0], seed=25), weights=(0.25,)),
        loss_case("weights of both signs, and of 0", partial(few, [20, 3, 9], seed=26), weights=(-1.5, 0.0, 2.0)),
        loss_case("gradients of very different sizes", partial(few, [250, 1, 0, 3], seed=27),
                  weights=(1e-3, 1.0, 1.0, 100.0)),
        loss_case("gradients of very different sizes, bfloat16", partial(few, [250, 1, 0, 3], seed=28), BF16,
                  weights=(1e-3, 1.0, 1.0, 100.0)),
        loss_case("another call before the backward pass", partial(few, [20, 3], seed=29),
                  gradients="of both, after another call"),
        loss_case("gradients taken twice", partial(few, [20, 3], seed=30), gradients="of both, twice"),
        loss_case("gradients of locations alone", partial(few, [20, 3], seed=31), gradients="of locations"),
        loss_case("gradients of logits alone", partial(few, [20, 3], seed=32), gradients="of logits"),
        loss_case("no gradients", partial(few, [20, 3], seed=33), gradients="of none"),
        *_layouts("loss", loss_case, partial(few, [20, 3], seed=34)),
        exact("gradients against float64, float32", partial(predictions, [9, 120], 81, seed=15)),
        exact("gradients against float64, bfloat16", partial(predictions, [9, 120], 81, seed=16), BF16),
        exact("gradients against float64, float16", partial(predictions, [9, 120], 81, seed=17), FP16),
    ]  # fmt: skip


def _detect() -> list[Case]:
    peaks, few = inputs.peaks, partial(inputs.peaks, defaults=301)
    return [
        detect_case("B=3, 6 classes", partial(peaks, [400] * 3, 6), quick=True),
        detect_case("B=1, 81 classes", partial(peaks, [500], 81, seed=1)),
        detect_case("more than 200 candidates a class", partial(peaks, [1500], 3, seed=2), quick=True),
        detect_case("nothing over the threshold", partial(peaks, [0, 0], 4, seed=3)),
        detect_case("1 detection", partial(peaks, [1], 4, seed=4)),
        detect_case("images of none, many and one", partial(few, [0, 280, 1, 0], 4, seed=12)),
        detect_case("ties: one prediction everywhere", partial(detect_edges.same_everywhere, 5), quick=True),
        detect_case("ties: several classes of one default box", detect_edges.several_classes),
        detect_case("ties: several classes of one default box, the best 33", detect_edges.several_classes,
                    max_detections=33),
        detect_case("ties: an overlap of exactly the limit", detect_edges.touching),
        detect_case("overlaps close to the limit", partial(detect_edges.near_the_limit, 0.15, 0.3, 3e-5),
                    max_detections=320),
        detect_case("boxes of a pixel and less", partial(detect_edges.near_the_limit, 2e-4, 0.003, 0.03),
                    max_detections=320),
        detect_case("ties: a score of exactly the threshold", detect_edges.even_scores, score_threshold=0.5),
        detect_case("ties: scores of exactly 1; logits of minus infinity, and in thousands", detect_edges.certain),
        detect_case("a chain of 100 boxes, each over the next", partial(detect_edges.chain, 100)),
        detect_case("a chain of 512 boxes, and as many candidates and detections", partial(detect_edges.chain, 512),
                    max_candidates=512, max_detections=512),
        detect_case("9 classes, and most of them count", partial(detect_edges.undecided, 40, 9, 0.5)),
        detect_case("81 classes that all count", partial(detect_edges.undecided, 30, 81), score_threshold=0.0,
                    max_candidates=30),
        detect_case("8,732 candidates of a class, the best last", detect_edges.rising),
        detect_case("more than 65,536 candidates a batch", partial(peaks, [NUM_DEFAULTS] * 9, 3, seed=11)),
        detect_case("boxes all at one place", partial(detect_edges.one_place, 4)),
        detect_case("boxes without a width, of infinite area, far away, and equal", detect_edges.far_sizes),
        detect_case("boxes and scores that are not finite", partial(detect_edges.broken, 3)),
        detect_case("bfloat16", partial(peaks, [100, 100], 4, seed=5), BF16),
        detect_case("float16", partial(peaks, [100], 4, seed=6), FP16),
        detect_case("non-contiguous inputs", partial(peaks, [100, 100], 4, seed=7, strided=True)),
        detect_case("parts of larger tensors", partial(inputs.apart, partial(few, [40, 20], 4, seed=13))),
        detect_case("other default boxes", partial(edges.with_other_defaults, partial(few, [90, 60], 3, seed=14))),
        detect_case("2 classes", partial(few, [90], 2, seed=15)),
        detect_case("1 default box", partial(peaks, [1, 0, 1], 4, seed=17, defaults=1)),
        detect_case("512 default boxes: the last block is full", partial(peaks, [500], 3, seed=18, defaults=512)),
        detect_case("8,192 default boxes: the last block is full", partial(peaks, [500], 3, seed=19, defaults=8192)),
        detect_case("score_threshold 0.6", partial(peaks, [100], 4, seed=9), score_threshold=0.6),
        detect_case("score_threshold 0", partial(few, [30], 4, seed=20), score_threshold=0.0),
        detect_case("nms_overlap 0", partial(few, [90], 4, seed=21), nms_overlap=0.0),
        detect_case("nms_overlap 1: only equal boxes go", detect_edges.far_sizes, nms_overlap=1.0),
        detect_case("max_candidates 5", partial(peaks, [100], 4, seed=10), max_candidates=5),
        detect_case("max_candidates 1", partial(few, [90, 60], 4, seed=22), max_candidates=1),
        detect_case("max_detections 1", partial(few, [90, 60], 4, seed=24), max_detections=1),
        detect_case("fewer candidates than max_detections", partial(few, [90, 60], 2, seed=23), max_candidates=3),
        detect_case("other limits", partial(peaks, [300], 4, seed=8),
                    score_threshold=0.3, nms_overlap=0.2, max_candidates=70, max_detections=33),
        detect_case("300 classes, many of them excluded", partial(detect_edges.many_excluded, 300), max_candidates=16),
        detect_case("inference mode", partial(few, [90, 60], 3, seed=25), inference=True),
        *_layouts("detect", detect_case, partial(few, [40, 20], 3, seed=26)),
    ]  # fmt: skip


def _crop() -> list[Case]:
    crops, stored = inputs.crops, inputs.stored

    def bounds(height: int, width: int, size: int) -> dict[str, int]:
        return {"height": height, "width": width, "size": size}

    def cut(name: str, sizes: list[tuple[int, int]], cuts: Sequence[tuple[int, ...]], size: int, **more: bool) -> Case:
        tallest, widest = (max(one[k + 2] - one[k] for one in cuts) for k in (2, 1))
        return crop_case(name, partial(stored, sizes, cuts, **more), bounds(tallest, widest, size))

    odd, small = [(33, 47), (32, 48), (1, 9), (9, 1)], bounds(21, 30, 16)
    edges = [(0, 0, 0, 33, 47), (0, 32, 46, 33, 47), (0, 1, 1, 33, 47), (1, 1, 3, 20, 20), (1, 0, 0, 31, 47),
             (1, 31, 0, 32, 48), (2, 0, 3, 1, 8), (2, 0, 8, 1, 9), (3, 2, 0, 9, 1)]  # fmt: skip
    halves = [(3, 1, 9, 2, 10), (1, 2, 2, 3, 3), (0, 5, 7, 7, 8), (0, 4, 6, 6, 10)]
    return [
        crop_case("B=3, RGB", partial(crops, 3, 40, 50), bounds(40, 50, 20), quick=True),
        crop_case("B=3, YUV 4:2:0", partial(crops, 3, 41, 51, seed=1, yuv=True), bounds(41, 51, 20), quick=True),
        crop_case("B=1, larger bounds than the rectangle's", partial(crops, 1, 20, 30, seed=2), bounds(25, 44, 16)),
        crop_case("300 x 300 pixels", partial(crops, 1, 2, 3, seed=3), bounds(2, 3, 300)),
        cut("odd sizes and corners, RGB", odd, edges, 12),
        cut("odd sizes and corners, YUV 4:2:0", odd, edges, 12, yuv=True),
        cut("1 pixel and 2, RGB", [(9, 12)] * 4, halves, 7),
        cut("1 pixel and 2, YUV 4:2:0", [(9, 12)] * 4, halves, 7, yuv=True),
        cut("1 image of 1 pixel, RGB", [(1, 1)], [(0, 0, 0, 1, 1)], 3),
        cut("1 image of 1 pixel, YUV 4:2:0", [(1, 1)], [(0, 0, 0, 1, 1)], 3, yuv=True),
        cut("as large as the result", [(17, 17), (20, 19)], [(0, 0, 0, 17, 17), (1, 2, 1, 19, 18)], 17),
        cut("15 cells and more a pixel", [(46, 3), (3, 47)], [(0, 0, 0, 46, 3), (1, 0, 1, 2, 47)], 3),
        cut("wide and flat, tall and narrow", [(300, 2), (2, 300)], [(0, 1, 0, 300, 2), (1, 0, 0, 2, 300)], 18),
        cut("black and white, YUV 4:2:0: what is brighter than 255", odd, edges[:4], 12, yuv=True, contrast=True),
        cut("black and white", odd, edges[:4], 12, contrast=True),
        cut("one image many times", [(31, 20)], [(0, k, k, 30 - k, 20 - k) for k in range(5)], 10),
        crop_case("1 pixel of result", partial(crops, 3, 5, 6, seed=4), bounds(5, 6, 1)),
        crop_case("4,900 pixels of result: the last block is not full", partial(crops, 2, 3, 9, seed=5, yuv=True),
                  bounds(3, 9, 70)),
        crop_case("non-contiguous slots and rectangles", partial(crops, 3, 21, 30, seed=6, strided=True), small),
        crop_case("parts of larger tensors, RGB", partial(inputs.apart, partial(crops, 3, 21, 30, seed=7)), small),
        crop_case("parts of larger tensors, YUV 4:2:0",
                  partial(inputs.apart, partial(crops, 3, 21, 30, seed=8, yuv=True)), small),
        crop_case("inference mode", partial(crops, 2, 21, 30, seed=9), small, inference=True),
        *_layouts("crop", partial(crop_case, options=bounds(9, 8, 6)), partial(crops, 3, 9, 8, seed=10, yuv=True)),
    ]  # fmt: skip


FIXED = {"augment": _augment, "encode": _encode, "loss": _loss, "detect": _detect, "crop": _crop}
"""What makes the fixed cases of an op."""
