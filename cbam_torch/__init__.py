"""CBAM for PyTorch.

>>> import torch, cbam_torch
>>> block = cbam_torch.CBAM(64, reduction=16)
>>> block(torch.randn(1, 64, 8, 8)).shape
torch.Size([1, 64, 8, 8])
"""

from cbam_torch.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_torch.weights import load_canonical, to_canonical

__all__ = [
    "CBAM", "ChannelAttention", "SpatialAttention", "SqueezeExcitation", "load_canonical",
    "to_canonical",
]  # fmt: skip
