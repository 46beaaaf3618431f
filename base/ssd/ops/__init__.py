"""The four replaceable kernels of a training step, and the contract each of them keeps.

An op is a plain function on tensors. The reference in this folder, one file each, is batched plain torch and is the
specification: an override of a vendor is held to it by `ssd.conformance`. `Ops` carries the four functions a run uses
and is passed as an argument; nothing is swapped behind the caller's back.

Letters, used in every docstring of this folder:
    B  images of the batch             N  ground-truth boxes an image, padded to the largest of the batch
    D  default boxes, 8,732            C  classes with background, 81 for COCO; class 0 is background
    K  detections an image, 200 at most
Boxes are fractions of the image's width and height: `ltrb` is left, top, right, bottom; `xywh` is centre and size.

    augment.py  encode.py  loss.py  detect.py    one op each: its contract and its reference
    table.py                                     Ops, the four of a run, and the signature of each
"""

from ssd.ops.augment import augment
from ssd.ops.detect import Detections, detect
from ssd.ops.encode import encode
from ssd.ops.loss import loss
from ssd.ops.table import OP_NAMES, REFERENCE, AnyOp, Augment, Detect, Encode, Loss, Ops

__all__ = [
    "OP_NAMES",
    "REFERENCE",
    "AnyOp",
    "Augment",
    "Detect",
    "Detections",
    "Encode",
    "Loss",
    "Ops",
    "augment",
    "detect",
    "encode",
    "loss",
]
