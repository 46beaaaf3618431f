"""The kernels of base/csrc for every vendor whose compiler speaks CUDA C++: built, called, offered.

build.py       sources -> a shared library, by the vendor's compiler or as a host build
ops.py         four of the ops, run by such a library
overrides.py   what a vendor's `overrides` returns to offer them
"""

__all__: list[str] = []
