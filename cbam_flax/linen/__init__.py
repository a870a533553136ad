"""CBAM for Flax linen.

>>> import jax, jax.numpy as jnp, cbam_flax.linen as cl
>>> block = cl.CBAM(64, reduction=16)
>>> x = jnp.ones((1, 8, 8, 64))
>>> block.apply(block.init(jax.random.key(0), x), x).shape
(1, 8, 8, 64)
"""

from cbam_flax.linen.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_flax.linen.weights import load_canonical, to_canonical

__all__ = [
    "CBAM", "ChannelAttention", "SpatialAttention", "SqueezeExcitation", "load_canonical",
    "to_canonical",
]  # fmt: skip
