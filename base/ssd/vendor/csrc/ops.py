"""Four of the ops of `ssd.ops`, run by a library that ssd.vendor.csrc.build made: arguments checked, errors raised.

`ops_of` gives functions with the signatures of the reference. They work on whatever device the library was built for
and never synchronise: kernels go to torch's current stream, and no size depends on the data.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssd.boxes import DefaultBoxes
from ssd.errors import MachineError
from ssd.ops import Detections, Ops
from ssd.ops.augment import ColourDraws
from ssd.vendor.csrc.build import open_library

__all__ = ["check_warp", "ops_of"]

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Element types as the C functions number them."""

_BOX_BYTES = 16
"""Boxes are read as one 16-byte word, so a tensor of boxes must begin at such an address."""


def ops_of(path: Path) -> Ops:
    """The ops of the library at `path`. A launch that fails raises MachineError."""
    kernels = _Kernels(open_library(path))
    return Ops(augment=kernels.augment, encode=kernels.encode, loss=kernels.loss, detect=kernels.detect)


def check_warp(path: Path, device: int) -> None:
    """MachineError unless accelerator `device` has the warp size that the library at `path` was built with."""
    library = open_library(path)
    built, found = library.ssd_warp(), library.ssd_device_warp(device)
    if found < 0:
        raise MachineError(f"no accelerator {device}: {library.ssd_error_text(-found).decode()}")
    if built != found:
        raise MachineError(
            f"the kernels in {path} are built for {built} lanes a warp, accelerator {device} has {found}: "
            "build them with the compiler of this accelerator"
        )


def _tensor(value: Tensor, dtype: torch.dtype, align: int = 1) -> Tensor:
    """`value` as dense memory of `dtype`, beginning at a multiple of `align` bytes; itself where it is that already."""
    dense = value.detach().to(dtype).contiguous()
    return dense if dense.data_ptr() % align == 0 else dense.clone()


def _float(value: Tensor) -> Tensor:
    """`value` as dense memory of an element type that the kernels read; float64 and others become float32."""
    return _tensor(value, value.dtype if value.dtype in DTYPES else torch.float32)


class _Kernels:
    """A loaded library's C functions, called with tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def call(self, name: str, *arguments: Tensor | int | float | None) -> None:
        """Launch on the current stream of the tensors' device; MachineError with the runtime's words if it fails."""
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        if device.type == "cuda":
            with torch.cuda.device(device):
                error = self._launch(name, arguments, torch.cuda.current_stream().cuda_stream)
        else:
            error = self._launch(name, arguments, 0)
        if error != 0:
            text = self.library.ssd_error_text(error).decode()
            raise MachineError(f"kernel {name} of {self.library._name} failed: error {error}, {text}")

    def _launch(self, name: str, arguments: Sequence[Tensor | int | float | None], stream: int) -> int:
        if hasattr(self.library, "ssd_host_tensors"):
            self._allow([argument for argument in arguments if isinstance(argument, Tensor)])
        function = getattr(self.library, name)
        return int(function(*map(_c_value, arguments), ctypes.c_void_p(stream)))

    def _allow(self, tensors: Sequence[Tensor]) -> None:
        """Tell a checked host build which memory the next call's kernels may touch: that of dense tensors."""
        count = len(tensors)
        addresses = (ctypes.c_void_p * count)(*(tensor.data_ptr() for tensor in tensors))
        sizes = (ctypes.c_size_t * count)(*(tensor.numel() * tensor.element_size() for tensor in tensors))
        element_sizes = (ctypes.c_size_t * count)(*(tensor.element_size() for tensor in tensors))
        if not self.library.ssd_host_tensors(count, addresses, sizes, element_sizes):
            raise MachineError(
                f"a checked host build follows fewer than {count} tensors: raise MOST_TENSORS in csrc/shadow.h"
            )

    def augment(
        self,
        images: Tensor,
        draws: ColourDraws | None,
        *,
        dtype: torch.dtype = torch.float32,
        channels: int = 3,
        channels_last: bool = False,
    ) -> Tensor:
        """See `ssd.ops.augment`."""
        batch, height, width, _ = images.shape
        flip = factors = order = grey = None
        if draws is not None:
            flip, order = _tensor(draws.flip, torch.bool), _tensor(draws.order, torch.int64)
            factors = _tensor(draws.factors, torch.float32)
            grey = images.new_empty((batch, self.library.ssd_augment_parts()), dtype=torch.float32)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        out = torch.empty((batch, channels, height, width), dtype=dtype, device=images.device, memory_format=layout)
        if batch > 0:
            sizes = (batch, height, width, channels, int(channels_last), DTYPES[dtype])
            self.call("ssd_augment", _tensor(images, torch.uint8), flip, factors, order, grey, out, *sizes)
        return out

    def encode(
        self, boxes: Tensor, labels: Tensor, defaults: DefaultBoxes, *, criteria: float = 0.5, epsilon: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """See `ssd.ops.encode`."""
        batch, n_boxes, _ = boxes.shape
        n_defaults = defaults.ltrb.shape[0]
        best = boxes.new_empty((batch, n_boxes), dtype=torch.int32)
        offsets = boxes.new_empty((batch, 4, n_defaults), dtype=torch.float32)
        targets = labels.new_empty((batch, n_defaults), dtype=torch.int64)
        given = (_boxes(boxes), _tensor(labels, torch.int64), _boxes(defaults.ltrb), _boxes(defaults.xywh))
        if batch > 0:
            sizes = (batch, n_boxes, n_defaults)
            self.call("ssd_encode", *given, best, offsets, targets, *sizes, float(criteria), float(epsilon))
        return offsets, targets

    def loss(
        self, locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3
    ) -> Tensor:
        """See `ssd.ops.loss`."""
        result: Tensor = _Loss.apply(locations, logits, offsets, labels, negative_ratio, self)
        return result

    def detect(
        self,
        locations: Tensor,
        logits: Tensor,
        defaults: DefaultBoxes,
        *,
        score_threshold: float = 0.05,
        nms_overlap: float = 0.5,
        max_candidates: int = 200,
        max_detections: int = 200,
    ) -> Detections:
        """See `ssd.ops.detect`. At most 512 candidates and detections: what the kernels reserve shared memory for."""
        most_kept: int = self.library.ssd_detect_most_kept()
        if max(max_candidates, max_detections) > most_kept:
            raise MachineError(
                f"these kernels keep at most {most_kept} candidates and detections, {max_candidates} and "
                f'{max_detections} were asked for: set detect_op = "reference"'
            )
        batch, n_classes, n_defaults = logits.shape

        def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return logits.new_empty(shape, dtype=dtype)

        decoded, most, total = new(batch, n_defaults, 4), new(batch, n_defaults), new(batch, n_defaults)
        kept = new(batch, n_classes - 1, max_candidates, dtype=torch.int64)
        boxes, scores = new(batch, max_detections, 4), new(batch, max_detections)
        labels, count = new(batch, max_detections, dtype=torch.int64), new(batch, dtype=torch.int64)
        if batch > 0:
            logits, xywh = _float(logits), _boxes(defaults.xywh)
            written = (decoded, most, total, kept, boxes, scores, labels, count)
            sizes = (batch, n_classes, n_defaults)
            limits = (float(score_threshold), float(nms_overlap), max_candidates, max_detections, DTYPES[logits.dtype])
            self.call("ssd_detect", _tensor(locations, logits.dtype), logits, xywh, *written, *sizes, *limits)
        return Detections(boxes, scores, labels, count)


def _boxes(value: Tensor) -> Tensor:
    return _tensor(value, torch.float32, _BOX_BYTES)


def _c_value(argument: Tensor | int | float | None) -> ctypes.c_void_p | ctypes.c_int | ctypes.c_float:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int(argument)


class _Loss(torch.autograd.Function):
    """The loss and its gradients in locations and logits; not differentiable twice."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        locations: Tensor,
        logits: Tensor,
        offsets: Tensor,
        labels: Tensor,
        negative_ratio: int,
        kernels: _Kernels,
    ) -> Tensor:
        batch, n_classes, n_defaults = logits.shape
        given_dtypes = (locations.dtype, logits.dtype)
        logits = _float(logits)
        locations, offsets = _tensor(locations, logits.dtype), _tensor(offsets, torch.float32)
        labels = _tensor(labels, torch.int64)
        entropy, most, log_sum = (logits.new_empty((batch, n_defaults), dtype=torch.float32) for _ in range(3))
        taken = logits.new_empty((batch, n_defaults), dtype=torch.uint8)
        positives = logits.new_empty((batch,), dtype=torch.int32)
        loss = logits.new_empty((batch,), dtype=torch.float32)
        sizes = (batch, n_classes, n_defaults)
        if batch > 0:
            written = (entropy, most, log_sum, taken, positives, loss)
            code = DTYPES[logits.dtype]
            kernels.call("ssd_loss_forward", locations, logits, offsets, labels, *written, *sizes, negative_ratio, code)
        ctx.save_for_backward(locations, logits, offsets, labels, most, log_sum, taken, positives)
        ctx.kernels, ctx.sizes, ctx.given_dtypes = kernels, sizes, given_dtypes  # type: ignore[attr-defined]
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, loss_gradient: Tensor):  # type: ignore[no-untyped-def]  # noqa: ANN001
        locations, logits, *rest = ctx.saved_tensors
        of_locations, of_logits = torch.empty_like(locations), torch.empty_like(logits)
        if loss_gradient.numel() > 0:
            gradient = _tensor(loss_gradient, torch.float32)
            written = (of_locations, of_logits)
            code = DTYPES[logits.dtype]
            ctx.kernels.call("ssd_loss_backward", locations, logits, *rest, gradient, *written, *ctx.sizes, code)
        to_locations, to_logits = ctx.given_dtypes
        return of_locations.to(to_locations), of_logits.to(to_logits), None, None, None, None
