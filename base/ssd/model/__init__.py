"""The network: a ResNet-34 backbone, SSD300's extra layers and heads, and where the backbone's weights come from.

resnet.py      the backbone. Its name in the model and in state dicts is `trunk`, which checkpoints keep
ssd300.py      the detector: backbone, extra blocks, heads
weights.py     reads a torchvision ResNet-34 file into the backbone, or refuses it with a message
build.py       makes a model from a seed, and reads the backbone from such a file where one is given

The modules take and return tensors. None of them imports data, config, ops or ranks.
"""

from __future__ import annotations

from ssd.model.build import build_model
from ssd.model.resnet import ResNet34Trunk
from ssd.model.ssd300 import SSD300
from ssd.model.weights import BACKBONE_SHA256, load_backbone, write_random_backbone

__all__ = ["BACKBONE_SHA256", "SSD300", "ResNet34Trunk", "build_model", "load_backbone", "write_random_backbone"]
