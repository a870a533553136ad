"""CBAM for Flax: nnx modules here, the linen ones in `cbam_flax.linen`.

>>> import jax.numpy as jnp, cbam_flax
>>> from flax import nnx
>>> block = cbam_flax.CBAM(64, reduction=16, rngs=nnx.Rngs(0))
>>> block(jnp.ones((1, 8, 8, 64))).shape
(1, 8, 8, 64)
"""

from cbam_flax.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_flax.weights import load_canonical, to_canonical

__all__ = [
    "CBAM", "ChannelAttention", "SpatialAttention", "SqueezeExcitation", "load_canonical",
    "to_canonical",
]  # fmt: skip
