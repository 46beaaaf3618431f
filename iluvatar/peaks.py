"""Peak arithmetic of Iluvatar's accelerators, TFLOP/s."""

from __future__ import annotations

from ssd.report.mfu import Peak

__all__ = ["PEAKS"]

PEAKS = (Peak(r"(Iluvatar )?BI-V100.*", {"fp16": 147}, "table of the benchmark suite FlagPerf, BI-V100"),)
