"""Verbs of the command line that are neither a run nor a room of their own.

given.py       what a command line names, looked for before torch is imported
table.py       every verb: what it does, its flags, its words
runnable.py    before and after a run that the command line starts
check.py       `check`: what can be known before a run
perfect.py     the metric of `check`, held to a perfect detector
evaluate.py    `evaluate`: a checkpoint's score on a COCO folder
detect.py      `detect`: a checkpoint's detections on a user's pictures
profile.py     `profile`: a few steps under torch's profiler
report.py      `report`: a run's page, made again
compare.py     `compare`: runs side by side, or two that must be the same
sides.py       what `compare` is given, read
equal.py       two runs that must be the same, with their checkpoints
restored.py    a checkpoint in use after its run: its config, and its model on a device
completion.py  `completion`: a script for the shell
campaign.py    `campaign`: what the runs of a result ask of the rest of the package
"""

__all__: list[str] = []
