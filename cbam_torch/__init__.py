"""CBAM for PyTorch.

>>> import torch, cbam_torch
>>> block = cbam_torch.CBAM(64, reduction=16)
>>> block(torch.randn(1, 64, 8, 8)).shape
torch.Size([1, 64, 8, 8])
"""

from cbam_torch.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_torch.backbones import (
    Backbone,
    DualPoolingHead,
    mobilenet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x4d,
    wide_resnet18,
)  # fmt: skip
from cbam_torch.explain import attention_maps, grad_cam
from cbam_torch.insert import insert_cbam, new_parameters
from cbam_torch.weights import load_canonical, to_canonical

__all__ = [
    "CBAM", "Backbone", "ChannelAttention", "DualPoolingHead", "SpatialAttention",
    "SqueezeExcitation", "attention_maps", "grad_cam", "insert_cbam", "load_canonical", "mobilenet",
    "new_parameters", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x4d", "to_canonical", "wide_resnet18",
]  # fmt: skip
