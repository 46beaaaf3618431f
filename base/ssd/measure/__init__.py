"""Timing of parts on this machine, for the verb `bench` and for the benchmarks of the folder bench/.

timing.py       runs calls in turn, and gives ratios with their quartiles
one_process.py  a run, of one process as a rule, ready to train, that keeps nothing
steps.py        takes its optimizer steps, and times blocks of them
evaluation.py   times its evaluation
short_run.py    starts a short run as users start one, to time it
decoding.py     images a second from JPEG files to batches
disk.py         reads files that the system does not hold in memory
copying.py      copies batches to the device
all_reduce.py   averages gradients in processes of its own
together.py     starts such processes
made_images.py  makes pictures of COCO's size, for a machine without a data set
settings.py     tries settings that may make a step faster
limits.py       which part limits a run, and how many cores feed it
kept.py         rows of `bench`, and the one to compare with
shown.py        all of it as a table, as JSON and as a config to paste
"""

from ssd.measure.timing import Ratio, alternate, ratio_of, spread

__all__ = ["Ratio", "alternate", "ratio_of", "spread"]
