"""Verbs of the command line that are neither a run nor a room of their own.

table.py       every verb: what it does, its flags, its words
check.py       `check`: what can be known before a run
trained.py     `evaluate` and `detect`: what a checkpoint is good for
campaign.py    `campaign`: what the runs of a result ask of the rest of the package
"""

__all__: list[str] = []
