"""Verbs of the command line that are neither a run nor a room of their own.

given.py       looks for what a command line names, before torch is imported
table.py       every verb: what it does, its flags, its words
runnable.py    what happens before and after a run that the command line starts
check.py       `check`: what can be checked before a run
perfect.py     the check that the metric gives a perfect detector AP 1
evaluate.py    `evaluate`: a checkpoint's score on a COCO folder
detect.py      `detect`: a checkpoint's detections on a user's pictures
bench.py       `bench`: each part of this machine alone, and which limits a run
measure.py     `plan --measure`: this machine measured, for `plan`
profile.py     `profile`: a few steps under torch's profiler
report.py      `report`: makes a run's page again
compare.py     `compare`: runs side by side, or two that must be the same
sides.py       reads the runs and systems that `compare` is given
equal.py       compares two runs that must be the same, with their checkpoints
restored.py    loads a checkpoint after its run: its config, and its model on a device
completion.py  `completion`: a script for the shell
campaign.py    `campaign`: what its runs need from the rest of the package
"""

__all__: list[str] = []
