"""CBAM for Keras 3, on the TensorFlow, JAX and torch backends.

>>> import keras, cbam_keras
>>> block = cbam_keras.CBAM(64, reduction=16)
>>> tuple(block(keras.random.normal((1, 8, 8, 64))).shape)
(1, 8, 8, 64)
"""

from cbam_keras.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_keras.weights import load_canonical, to_canonical

__all__ = [
    "CBAM", "ChannelAttention", "SpatialAttention", "SqueezeExcitation", "load_canonical",
    "to_canonical",
]  # fmt: skip
