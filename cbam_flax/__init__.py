"""CBAM for Flax: nnx modules here, the linen ones in `cbam_flax.linen`.

>>> import jax.numpy as jnp, cbam_flax
>>> from flax import nnx
>>> block = cbam_flax.CBAM(64, reduction=16, rngs=nnx.Rngs(0))
>>> block(jnp.ones((1, 8, 8, 64))).shape
(1, 8, 8, 64)
"""

from cbam_flax.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_flax.backbones import (
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
from cbam_flax.explain import attention_maps, grad_cam
from cbam_flax.insert import insert_cbam, new_parameters
from cbam_flax.weights import load_canonical, to_canonical

__all__ = [
    "CBAM", "Backbone", "ChannelAttention", "DualPoolingHead", "SpatialAttention",
    "SqueezeExcitation", "attention_maps", "grad_cam", "insert_cbam", "load_canonical", "mobilenet",
    "new_parameters", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x4d", "to_canonical", "wide_resnet18",
]  # fmt: skip
