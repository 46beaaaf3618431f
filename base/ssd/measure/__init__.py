"""Timing of parts on this machine, for the verb `bench` and for the benchmarks of the folder bench/.

timing.py    runs calls in turn, and gives ratios with their quartiles
"""

from ssd.measure.timing import Ratio, alternate, ratio_of, spread

__all__ = ["Ratio", "alternate", "ratio_of", "spread"]
