"""The ops in Triton, for every vendor whose torch has it: the contracts of base/csrc and `crop`.

Nothing here names a maker. A vendor offers the kernels in one line, as it does those of base/csrc.

augment.py, encode.py, loss.py, detect.py, crop.py    the kernels of one op each; select.py is shared by loss and detect
launch.py       how kernels are started: executed, or recorded to be compiled
targets.py      the GPUs that the kernels are compiled for, as data
build.py        compiles recorded launches for a target that is not here; registers, stack, shared memory of each
matrix.py       every program for every target, in parallel, and its page docs/kernel_table.md
sources.py      a hash of the kernels' code, by which a kept page is found to be old
checked.py      the interpreter with every memory access checked: races, accesses outside a tensor
ir.py           the same checks on Triton's own IR, by ttsem where it is installed
overrides.py    what a vendor's `overrides` returns to offer them

The folder's name hides nothing: imports are absolute, so `import triton` is the library everywhere.
"""

__all__: list[str] = []
