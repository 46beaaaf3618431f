"""The ops: the replaceable kernels of training and evaluation, and the contract that each of them keeps.

An op is a plain function on tensors. Each file of this folder holds one op's reference, which is batched plain torch.
The reference is the specification: `ssd.conformance` compares a vendor's override with it. `Ops` carries the
functions that a run uses and is passed as an argument. No function is replaced at run time behind the caller's back.

These letters name sizes in every docstring of this folder:
    B  images in the batch             N  ground-truth boxes of an image, padded to the largest number in the batch
    D  default boxes, 8,732            C  classes, background included; 81 for COCO. Class 0 is the background
    K  detections of an image, at most 200
Coordinates of boxes are fractions of the image's width and height. `ltrb` means left, top, right, bottom. `xywh` means
x and y of the centre, width and height.

    augment.py  encode.py  loss.py  detect.py  crop.py    one op each: its contract and its reference
    table.py                                              Ops, which holds those of a run, and the signature of each
"""

from ssd.ops.augment import augment
from ssd.ops.crop import crop
from ssd.ops.detect import Detections, detect
from ssd.ops.encode import encode
from ssd.ops.loss import loss
from ssd.ops.table import OP_NAMES, REFERENCE, AnyOp, Augment, Crop, Detect, Encode, Loss, Ops

__all__ = [
    "OP_NAMES",
    "REFERENCE",
    "AnyOp",
    "Augment",
    "Crop",
    "Detect",
    "Detections",
    "Encode",
    "Loss",
    "Ops",
    "augment",
    "crop",
    "detect",
    "encode",
    "loss",
]
