"""The network: a ResNet-34 trunk, SSD300's extra layers and heads, and where the trunk's weights come from.

Tensors in, tensors out: nothing here knows of data, configs, ops or ranks.
"""

from __future__ import annotations

from ssd.model.resnet import ResNet34Trunk
from ssd.model.ssd300 import SSD300, build_model
from ssd.model.weights import BACKBONE_SHA256, load_backbone, write_random_backbone

__all__ = ["BACKBONE_SHA256", "SSD300", "ResNet34Trunk", "build_model", "load_backbone", "write_random_backbone"]
