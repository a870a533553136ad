"""Layers and models in the manner of the public Keras CBAMs, for any backend of Keras 3."""

from __future__ import annotations

import keras
from keras import layers, ops

from cbam_core import CBAMSpec
from tests.crosscheck.modules import Row


def hard_sigmoid_of_keras_2(x):
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def kobiso(gate="sigmoid", shape=(None, None, 32), ratio=8):
    """A functional model of kobiso's function, which the seeds copied."""
    inputs = keras.Input(shape)
    channels = shape[-1]
    one = layers.Dense(channels // ratio, activation="relu")
    two = layers.Dense(channels)
    pools = layers.GlobalAveragePooling2D()(inputs), layers.GlobalMaxPooling2D()(inputs)
    logits = [two(one(layers.Reshape((1, 1, channels))(pool))) for pool in pools]
    x = layers.Multiply()([inputs, layers.Activation(gate)(layers.Add()(logits))])
    maps = layers.Concatenate()([ops.mean(x, 3, True), ops.max(x, 3, True)])
    conv = layers.Conv2D(1, 7, padding="same", activation=gate, use_bias=False)
    return keras.Model(inputs, layers.Multiply()([x, conv(maps)]))


class AddonsChannel(layers.Layer):
    def __init__(self, reduction=16):
        super().__init__()
        self.reduction = reduction

    def build(self, shape):
        first = layers.Conv2D(shape[-1] // self.reduction, 1, use_bias=False, activation="relu")
        self.se = keras.Sequential([first, layers.Conv2D(shape[-1], 1, use_bias=False)])
        self.se.build((None, 1, 1, shape[-1]))

    def call(self, x):
        pools = ops.max(x, (1, 2), keepdims=True), ops.mean(x, (1, 2), keepdims=True)
        return ops.sigmoid(self.se(pools[0]) + self.se(pools[1]))


class Addons(layers.Layer):
    """k3-addons': a kernel of 49, and the input added back; built by its first call."""

    def __init__(self):
        super().__init__()
        self.ca = AddonsChannel()
        self.conv = layers.Conv2D(1, 49, padding="same", activation="sigmoid")

    def call(self, x):
        y = x * self.ca(x)
        maps = ops.concatenate([ops.max(y, -1, True), ops.mean(y, -1, True)], -1)
        return y * self.conv(maps) + x


class Normed(layers.Layer):
    """A spatial gate with Keras' own batch norm, channels first."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(1, 3, padding="same", use_bias=False)
        self.norm = layers.BatchNormalization()

    def call(self, x, training=None):
        x = ops.transpose(x, (0, 2, 3, 1))
        maps = ops.stack([ops.mean(x, -1), ops.max(x, -1)], -1)
        y = x * ops.sigmoid(self.norm(self.conv(maps), training=training))
        return ops.transpose(y, (0, 3, 1, 2))


ROWS = {
    "kobiso": Row(kobiso, CBAMSpec(32, hidden=4, mlp_bias=True), {"presets": ("kobiso",)}),
    "seed": Row(
        lambda: kobiso(hard_sigmoid_of_keras_2, (10, 14, 32)),
        CBAMSpec(32, hidden=4, mlp_bias=True, gate="hard_sigmoid_keras2"),
        {"presets": ("keras",)},
    ),
    "k3_addons": Row(
        Addons,
        CBAMSpec(32, kernel_size=49, spatial_bias=True, residual=True),
        {"presets": ("xmu", "k3_addons")},
        channels=32,
    ),
    "channels_first": Row(
        Normed,
        CBAMSpec(
            16, kernel_size=3, spatial_norm=True, norm_eps=1e-3, norm_momentum=0.01,
            order="spatial",
        ),
        {"running_variance": "biased"},
        channels=16,
    ),
}  # fmt: skip
