"""Planning: how long a run to the target takes on given accelerators, where the numbers come from, how sure they are.

rows.py       published systems, one row each, read from a CSV file
model.py      the step's time from a few physical constants, and how they are fitted
overhead.py   what a run takes besides its steps: start, first epoch, evaluations
epochs.py     epochs to the target at a global batch, and their spread over runs
validate.py   `plan --validate`: systems of one submitter predicted from all others
predict.py    one prediction: a config on N accelerators
tables.py     predictions and errors as tables, JSON, and a page with a curve
command.py    the verb `plan`
"""

__all__: list[str] = []
