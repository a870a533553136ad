"""CBAM for TensorFlow.

>>> import tensorflow as tf, cbam_tf
>>> block = cbam_tf.CBAM(64, reduction=16)
>>> block(tf.random.normal([1, 8, 8, 64])).shape
TensorShape([1, 8, 8, 64])
"""

from cbam_tf.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_tf.weights import load_canonical, to_canonical

__all__ = [
    "CBAM", "ChannelAttention", "SpatialAttention", "SqueezeExcitation", "load_canonical",
    "to_canonical",
]  # fmt: skip
