"""CBAM for Flax linen.

>>> import jax, jax.numpy as jnp, cbam_flax.linen as cl
>>> block = cl.CBAM(64, reduction=16)
>>> x = jnp.ones((1, 8, 8, 64))
>>> block.apply(block.init(jax.random.key(0), x), x).shape
(1, 8, 8, 64)
"""

from cbam_flax.linen.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_flax.linen.backbones import (
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
from cbam_flax.linen.explain import attention_maps, grad_cam
from cbam_flax.linen.insert import insert_cbam, new_parameters
from cbam_flax.linen.weights import initial_variables, load_canonical, pretrained, to_canonical

__all__ = [
    "CBAM", "Backbone", "ChannelAttention", "DualPoolingHead", "SpatialAttention",
    "SqueezeExcitation", "attention_maps", "grad_cam", "initial_variables", "insert_cbam",
    "load_canonical", "mobilenet", "new_parameters", "pretrained", "resnet18", "resnet34",
    "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d", "to_canonical",
    "wide_resnet18",
]  # fmt: skip
