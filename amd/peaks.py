"""Dense peak arithmetic of AMD's Instinct GPUs, TFLOP/s, from AMD's data sheets (their figures without sparsity)."""

from __future__ import annotations

from ssd.report.mfu import Peak

__all__ = ["PEAKS"]

PEAKS = (
    Peak(
        r"AMD Instinct MI300X( VF)?",
        {"bf16": 1307.4, "fp16": 1307.4, "tf32": 653.7, "fp32": 163.4},
        "AMD Instinct MI300X data sheet",
    ),
    # The matrix units of this generation have no TF32.
    Peak(
        r"AMD Instinct MI355X( VF)?",
        {"bf16": 2516.6, "fp16": 2516.6, "fp32": 157.3},
        "AMD Instinct MI355X data sheet",
    ),
)
