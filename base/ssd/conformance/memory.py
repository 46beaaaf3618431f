"""Memory that shows what a kernel does beside its result: writes outside of its tensors, and reads of nothing.

    with Memory(device, poison=0xFF) as memory:
        function(memory.place(tensor))
    memory.require_intact()

Every tensor that is made inside stands between two guards, filled with a known byte. A tensor that is made without
values (torch.empty) is filled with that byte as well: 0xFF is "not a number" in every float format, and -1 as an
integer.
Two calls with different bytes give different results if one of them reads what nobody wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssd.conformance.compare import Mismatch

__all__ = ["Memory"]

GUARD = 256
"""Bytes before and after a tensor. A multiple of 256, so that tensors begin where torch's own would."""

ALIGNED = 16
"""Bytes that a device reads at once. A view into a larger tensor may begin between two of such addresses."""

aten = torch.ops.aten
WITHOUT_VALUES = {
    aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.new_empty.default,
    aten.new_empty_strided.default,
}  # fmt: skip
WITH_VALUES = {
    aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default, aten.ones.default, aten.full.default,
    aten.full_like.default, aten.new_full.default,
}  # fmt: skip


class Memory(TorchDispatchMode):
    """A dispatch mode that gives the tensors made inside it guards of `guard` bytes; see the module's docstring.

    floats: the byte that memory of floats is filled with, where it is another one than `poison`.
    """

    def __init__(self, poison: int, guard: int = GUARD, floats: int | None = None) -> None:
        super().__init__()
        self.poison, self.guard = poison, guard
        self.floats = poison if floats is None else floats
        self._blocks: list[tuple[Tensor, int, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in WITHOUT_VALUES:
            return self._between_guards(result)
        return self.place(result) if func in WITH_VALUES else result

    def place(self, tensor: Tensor) -> Tensor:
        """A copy of `tensor`, of any shape and dtype, with the same strides and with guards on both sides."""
        copy = self._between_guards(tensor)
        return copy.copy_(tensor) if copy is not tensor else tensor

    def require_intact(self) -> None:
        """Raise Mismatch where a byte beside one of the tensors has changed."""
        for block, before, inner in self._blocks:
            sides = torch.cat((block[:before], block[before + inner :]))
            if not bool((sides == self.poison).all()):
                raise Mismatch("the override wrote outside of a tensor")

    def _between_guards(self, tensor: Tensor) -> Tensor:
        """New memory of a tensor's shape, strides and type, filled with the poison; an empty tensor stays."""
        if tensor.numel() == 0 or tensor.layout != torch.strided or tensor.device.type == "meta":
            return tensor
        span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        inner, before = span * tensor.element_size(), self.guard
        if self.guard:  # a tensor that does not begin its memory stays as far from a whole address
            before += int(tensor.storage_offset()) * tensor.element_size() % ALIGNED
        block = torch.full((before + inner + self.guard,), self.poison, dtype=torch.uint8, device=tensor.device)
        self._blocks.append((block, before, inner))
        mine = block[before : before + inner]
        if tensor.dtype.is_floating_point:
            mine.fill_(self.floats)
        flat = mine.view(tensor.dtype)
        return flat.as_strided(tensor.shape, tensor.stride(), flat.storage_offset())
