"""What the code that torch.compile generates for a GPU moves and computes, without a GPU.

torch traces forward and backward of a model, Inductor lowers and fuses both for an H100, and each kernel that it would
then write is looked at. Nothing is compiled to machine code and nothing runs: tensors have shapes and no values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._dynamo.device_interface import CudaInterface
from torch._functorch.aot_autograd import aot_module_simplified
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor import config as inductor_config
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import MultiOutput
from torch._inductor.scheduler import BaseSchedulerNode, FusedSchedulerNode, NopKernelSchedulerNode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import flop_registry

__all__ = ["Kernel", "generated"]

CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132, total_memory=80 * 2**30,
    max_threads_per_multi_processor=2048, max_threads_per_block=1024, regs_per_multiprocessor=65536, warp_size=32,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 * 2**20, clock_rate=1_980_000, memory_clock_rate=2_619_000, memory_bus_width=5120, uuid="",
)  # fmt: skip
"""What Inductor asks of the GPU, as CUDA reports it of an H100 SXM."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of a step.

    backward: in the backward pass. origins: names of the torch operations in it. biased: whether it is a convolution
    with a bias; None where it is no convolution. bytes: what it reads and writes, each buffer once, as far as it looks
    at it. flop: multiplications and additions of a convolution. launches: two for a convolution's backward pass, whose
    gradients of the input and of the weights are computed apart.
    """

    backward: bool
    origins: tuple[str, ...]
    biased: bool | None
    bytes: int
    flop: int
    launches: int


class _AllCountedError(Exception):
    """Ends Inductor once the kernels of a graph are known, before code is written for them."""


def generated(model: nn.Module, images: Tensor) -> list[Kernel]:
    """The kernels of one forward and backward pass of `model` on `images` (B, C, H, W), under autocast to bf16.

    model: on the CPU, in the memory format that is looked at; no value is read or changed. images: values are not read.
    """
    kernels: list[Kernel] = []
    network: Any = _Autocast(model)  # torch's annotation asks for a graph; any module will do

    def compiler(backward: bool) -> Any:
        def compile_graph(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            kernels.extend(_lowered(graph, inputs, backward))
            return lambda *arguments: None

        return compile_graph

    # Gradients are traced on the CPU: torch's autograd asks a GPU's driver. `_lowered` moves each graph to the GPU.
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=True),
        mock.patch.object(torch._C, "_conv_determine_backend_memory_format", _as_cudnn),
        mock.patch("torch._inductor.decomposition.is_gpu", return_value=True),
    ):
        shaped = torch.empty_strided(images.shape, images.stride(), dtype=images.dtype)
        aot_module_simplified(
            network, (shaped,), compiler(False), compiler(True),
            partition_fn=min_cut_rematerialization_partition, decompositions=select_decomp_table(),
        )  # fmt: skip
    return kernels


class _Autocast(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Any, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = self.model(images)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def _as_cudnn(*_: Any) -> torch.memory_format:
    """cuDNN answers a channels-last convolution in the same layout; a build for the CPU would answer otherwise."""
    return torch.channels_last


def _lowered(graph: torch.fx.GraphModule, inputs: Any, backward: bool) -> list[Kernel]:
    """The kernels of one graph, with every tensor of it on a GPU."""
    device, found = torch.device("cuda:0"), list[Kernel]()
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": device}
    graph.recompile()
    with FakeTensorMode():
        there = [
            torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=device)
            if isinstance(one, Tensor)
            else one
            for one in inputs
        ]
        moved = make_fx(graph)(*there)

    def look(lowering: GraphLowering) -> None:
        lowering.init_wrapper_code()
        lowering._update_scheduler()
        found.extend(_kernels(lowering.scheduler.nodes, backward))
        raise _AllCountedError

    with _pretended(), mock.patch.object(GraphLowering, "codegen", look):
        try:
            compile_fx_inner(moved, there, is_backward=backward, static_input_idxs=range(len(there)))
        except Exception as error:  # Inductor wraps what its parts raise
            if _AllCountedError.__name__ not in repr(error):
                raise
    return found


@contextmanager
def _pretended() -> Iterator[None]:
    """Inductor is answered as by an H100. It asks for properties; it would compile only after it has been stopped."""
    answers: list[tuple[Any, str, Any]] = [
        (CudaInterface.Worker, "get_device_properties", staticmethod(lambda *_: H100)),
        (CudaInterface, "get_device_properties", staticmethod(lambda *_: H100)),
        (torch.cuda, "get_device_properties", lambda *_: H100),
        (torch.cuda, "get_device_capability", lambda *_: (H100.major, H100.minor)),
    ]
    answers += [(torch.cuda, "current_device", lambda: 0), (CudaInterface, "current_device", staticmethod(lambda: 0))]
    for name in ("set_device", "exchange_device", "maybe_exchange_device"):
        answers.append((CudaInterface, name, staticmethod(lambda *_: 0)))
    with ExitStack() as stack:
        for owner, name, answer in answers:
            stack.enter_context(mock.patch.object(owner, name, answer))
        stack.enter_context(mock.patch("torch._inductor.compile_fx._check_triton_bf16_support"))
        stack.enter_context(mock.patch("torch._inductor.scheduler.has_triton", return_value=True))
        stack.enter_context(inductor_config.patch(fx_graph_cache=False, fx_graph_remote_cache=False))
        yield


def _kernels(nodes: list[BaseSchedulerNode], backward: bool) -> Iterator[Kernel]:
    for node in nodes:
        if isinstance(node, NopKernelSchedulerNode) or isinstance(node.node, MultiOutput):
            continue  # no kernel: a buffer without contents, and the outputs of the kernel before it
        origins = {origin for one in node.get_nodes() if one.node is not None for origin in one.node.get_origins()}
        names = tuple(sorted({str(origin.target) for origin in origins}))
        flop, biased = 0, None
        if node.is_extern():
            flop, biased = _convolution(origins)
        yield Kernel(backward, names, biased, _traffic(node), flop, 2 if backward and biased is not None else 1)


def _convolution(origins: set[torch.fx.Node]) -> tuple[int, bool | None]:
    """FLOP of the convolution among an extern kernel's operations, and whether it has a bias."""
    for origin in origins:
        packet = getattr(origin.target, "overloadpacket", None)
        if packet in CONVOLUTIONS:
            values = [one.meta["val"] if isinstance(one, torch.fx.Node) else one for one in origin.args]
            biased = values[3 if packet is torch.ops.aten.convolution_backward else 2] not in (None, [0])
            return int(flop_registry[packet](*values, out_val=origin.meta["val"])), biased
    return 0, None


def _traffic(node: BaseSchedulerNode) -> int:
    """Bytes that a kernel reads and writes: of each buffer no more than the loops of its parts look at."""
    whole = node.get_read_write_buffer_accesses(include_reads=True, include_writes=True)
    if not isinstance(node, FusedSchedulerNode):
        return sum(whole.values())
    parts: Counter[str] = Counter()
    for one in node.snodes:
        parts.update(one.get_read_write_buffer_accesses(include_reads=True, include_writes=True))
    return sum(min(size, parts[name]) if name in parts else size for name, size in whole.items())
