"""Dense peak arithmetic of NVIDIA's GPUs, TFLOP/s, from its data sheets; where those count sparsity, half of it."""

from __future__ import annotations

from ssd.report.mfu import Peak

__all__ = ["PEAKS"]


def _tensor(half: float, tf32: float, fp32: float) -> dict[str, float]:
    return {"bf16": half, "fp16": half, "tf32": tf32, "fp32": fp32}


PEAKS = (
    Peak(r"Tesla V100-SXM2-(16|32)GB", {"fp16": 125, "fp32": 15.7}, "V100 data sheet, SXM2"),
    Peak(r"Tesla V100-PCIE-(16|32)GB", {"fp16": 112, "fp32": 14}, "V100 data sheet, PCIe"),
    Peak(r"(NVIDIA )?A100(-SXM4-(40|80)GB|-PCIE-40GB| 80GB PCIe)", _tensor(312, 156, 19.5), "A100 data sheet"),
    Peak(r"NVIDIA H100 80GB HBM3", _tensor(989.4, 494.7, 66.9), "H100 data sheet, SXM"),
    Peak(r"NVIDIA H100 PCIe", _tensor(756, 378, 51), "H100 data sheet, PCIe"),
    Peak(r"NVIDIA H200", _tensor(989.4, 494.7, 66.9), "H200 data sheet, SXM"),
)
