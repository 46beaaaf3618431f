"""The seam: what an accelerator's vendor may change, and how its folder is found, loaded and asked.

interface.py   Vendor, the class a vendor's folder subclasses; every default works on any torch device
checks.py      Check: one thing that must hold of a machine before a run
overrides.py   Override: one op that a vendor replaces
required.py    what a run requires: checks that hold, and the ops that its config asks for
loading.py     a vendor's folder, loaded by path
scaffold.py    `vendors new`: the files of a new vendor
csrc/          the kernels of base/csrc: built by a vendor's compiler, called, offered as overrides
triton/        these ops, and `crop`, in Triton: compiled or interpreted, offered as overrides
"""

from ssd.config.folders import vendor_folders
from ssd.vendor.checks import SMOKE_RUN, Check
from ssd.vendor.interface import Vendor, compile_model
from ssd.vendor.loading import load_vendor
from ssd.vendor.overrides import Override
from ssd.vendor.required import require_device, require_machine, require_own_sizes, select_ops

__all__ = [
    "SMOKE_RUN",
    "Check",
    "Override",
    "Vendor",
    "compile_model",
    "load_vendor",
    "require_device",
    "require_machine",
    "require_own_sizes",
    "select_ops",
    "vendor_folders",
]
