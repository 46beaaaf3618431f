"""SSD300 with a ResNet-34 backbone, trained on COCO 2017 to mAP 0.23 on any accelerator: the vendor-neutral package."""

__all__ = ["__version__"]

__version__ = "0.1.0"
