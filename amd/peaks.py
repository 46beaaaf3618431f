"""Dense peak arithmetic of AMD's Instinct GPUs, TFLOP/s, without sparsity. Derived, not copied from a data sheet.

Each figure is compute units x FLOP a clock of one x the peak engine clock. A clock of a compute unit is 2,048 (bf16,
fp16), 1,024 (tf32) and 256 (fp32) FLOP with CDNA 3, and 4,096 and 256 with CDNA 4. AMD publishes MI355X's bf16 as 2.5
PFLOP/s, which is this product rounded.
"""

from __future__ import annotations

from ssd.report.mfu import Peak

__all__ = ["PEAKS"]

PEAKS = (
    Peak(
        r"AMD Instinct MI300X( VF)?",
        {"bf16": 1307.4, "fp16": 1307.4, "tf32": 653.7, "fp32": 163.4},
        "derived: 304 compute units at 2.1 GHz, CDNA 3",
    ),
    # The matrix units of this generation have no TF32.
    Peak(
        r"AMD Instinct MI355X( VF)?",
        {"bf16": 2516.6, "fp16": 2516.6, "fp32": 157.3},
        "derived: 256 compute units at 2.4 GHz, CDNA 4",
    ),
)
