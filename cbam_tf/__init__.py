"""CBAM for TensorFlow.

>>> import tensorflow as tf, cbam_tf
>>> block = cbam_tf.CBAM(64, reduction=16)
>>> block(tf.random.normal([1, 8, 8, 64])).shape
TensorShape([1, 8, 8, 64])
"""

from cbam_tf.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_tf.backbones import (
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
from cbam_tf.explain import attention_maps, grad_cam
from cbam_tf.insert import insert_cbam, new_parameters
from cbam_tf.weights import load_canonical, to_canonical

__all__ = [
    "CBAM", "Backbone", "ChannelAttention", "DualPoolingHead", "SpatialAttention",
    "SqueezeExcitation", "attention_maps", "grad_cam", "insert_cbam", "load_canonical", "mobilenet",
    "new_parameters", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x4d", "to_canonical", "wide_resnet18",
]  # fmt: skip
