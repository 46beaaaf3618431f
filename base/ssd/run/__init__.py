"""What a run needs besides its arithmetic: set-up, data, schedule, clock, checkpoints, evaluation, records, outcome.

start.py       what happens before anything is written: folder, checkpoint, seed, data
records.py     what is written meanwhile: result log, metrics, telemetry, progress line
setup.py       between init_start and init_stop: the frozen Run that the loop of ssd.train takes
live.py        that Run: its parts, how far it has come, and how it is saved
scoring.py     evaluations, whose scores are waited for or not
build.py       what learns: network, optimizer, loss scaler
outcome.py     after run_stop: exit code, summary, picture
usage.py       after run_stop: what the run took of its machine
sources.py     from a config to batches: the one place that knows which loader and which files a run reads
schedule.py    the learning rate of every step
loss_watch.py  the loss, read back without stopping the device, and never allowed to be NaN
step_record.py  what is kept of each step, so that two runs can be held to each other
sampling.py    the parts of a few steps an epoch
notes.py       what metrics.jsonl is told of epochs and evaluations, by every rank
progress.py    metrics.jsonl and the clock
line.py        what people see meanwhile: the progress bar or lines, and run.log
checkpoint.py  the state of a run, written and read
saved.py       what a run that was cut off has saved, and how it goes on
saves.py       when the newest checkpoint was written, and whether it is kept beside the next
stops.py       signals that ask a run to stop with a checkpoint, and how its processes agree on the step
inputs.py      hashes of what a run is trained on: a resume is the same run
rewind.py      the logs of a resumed run, taken back to where its checkpoint was written
evaluation.py  from a model to COCO's twelve numbers
tensorboard.py  curves for TensorBoard, where a key asks for them
telemetry.py   power, temperature, memory and clock, sampled in a thread
facts.py       a config as the result log wants it
"""

__all__: list[str] = []
