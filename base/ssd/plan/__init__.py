"""Planning: how long a run to the target takes on given accelerators, where the numbers come from, how sure they are.

arguments.py  what `plan` refuses before torch is imported
rows.py       published systems, one row each, read from a CSV file
constants.py  the numbers of base/published/constants.json, and how the fitted ones get there
model.py      the step's time from a few physical constants, and how they are fitted
overhead.py   what a run takes besides its steps: start, first epoch, evaluations
epochs.py     epochs to the target at a global batch, and their spread over runs
observed.py   epochs of this project's own runs of a named config
measured.py   what was measured: a run's folder, or the file of `plan --measure`
roofline.py   a chip without rows, by its peak arithmetic and memory bandwidth
simulate.py   on paper: an all-reduce, and waiting for the slowest rank
sources.py    the best numbers at hand, and which figure has which
predict.py    one prediction: a config on N accelerators
how_long.py   the same in a sentence, for `check` and `campaign`
search.py     the fewest accelerators that meet a time
validate.py   `plan --validate`: systems of one submitter predicted from all others
tables.py     predictions and errors as tables, and JSON
page.py       the same as a page with a curve
command.py    the verb `plan`
"""

__all__: list[str] = []
