"""The network: a ResNet-34 backbone, SSD300's extra layers and heads, and where the backbone's weights come from.

resnet.py      the backbone; `trunk` is its name in the model and in state dicts
ssd300.py      the detector: backbone, extra blocks, heads
weights.py     a torchvision ResNet-34 file, read into the backbone or refused in words
build.py       a model from a seed, and from such a file where one is given

Tensors in, tensors out: nothing here knows of data, configs, ops or ranks.
"""

from __future__ import annotations

from ssd.model.build import build_model
from ssd.model.resnet import ResNet34Trunk
from ssd.model.ssd300 import SSD300
from ssd.model.weights import BACKBONE_SHA256, load_backbone, write_random_backbone

__all__ = ["BACKBONE_SHA256", "SSD300", "ResNet34Trunk", "build_model", "load_backbone", "write_random_backbone"]
