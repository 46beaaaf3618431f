"""The arithmetic of one optimizer step, and of many processes.

ranks.py       the processes of a run, and what they say to each other besides gradients
step.py        one micro-batch: augment, encode, forward, loss, backward; eager or as a replayed CUDA graph
capture.py     whether a step may be captured, held on any machine
precision.py   autocast and loss scaling
gradients.py   gradients in one flat buffer, or communicated in bf16
batch_norm.py  batch norm whose statistics a group of ranks shares
optimizer.py   momentum SGD in torch's ways to run it
apex.py        the same by apex, where a config asks for it
memory.py      how much memory a run takes on a CPU
"""

__all__: list[str] = []
