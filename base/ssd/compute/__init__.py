"""The arithmetic of one optimizer step, and what the processes of a run exchange.

device.py      what a torch device must have, and what it may have
ranks.py       the processes of a run: rank, world_size, barrier, and exchanges other than gradients
step.py        one micro-batch: augment, encode, forward, loss, backward; and what ends an optimizer step
graphs.py      the same as replayed CUDA graphs, and an evaluation's batches
copies.py      batches copied to the device beside the computation
capture.py     whether a CUDA graph can capture a step; this can be tested on any machine
laps.py        moments in a device's work, marked without waiting for it
precision.py   autocast and loss scaling
gradients.py   gradients in one flat buffer, or communicated in bf16
batch_norm.py  batch norm whose statistics are those of a group of ranks
optimizer.py   momentum SGD, fused or not
apex.py        optimizer, mixed precision and DDP of apex, where a config asks for it
memory.py      how much memory a run takes on a CPU
"""

__all__: list[str] = []
