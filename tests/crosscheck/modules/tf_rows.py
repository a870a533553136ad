"""Modules in the manner of the public TensorFlow CBAMs, whose functions become tf modules here."""

from __future__ import annotations

import math

import tensorflow as tf

from cbam_core import CBAMSpec
from tests.crosscheck.modules import Row

EVENLY = {"ties": {"space": "even", "channels": "even"}}


def drawn(shape):
    """The same values every time, which keep the scale of a map."""
    return math.prod(shape[:-1]) ** -0.5 * tf.random.stateless_normal(shape, (0, 0))


class Dense(tf.Module):
    def __init__(self, inputs, outputs, name):
        super().__init__(name)
        with self.name_scope:
            self.kernel = tf.Variable(drawn((inputs, outputs)), name="kernel")
            self.bias = tf.Variable(tf.zeros(outputs), name="bias")

    def __call__(self, x):
        return x @ self.kernel + self.bias


class Conv(tf.Module):
    def __init__(self, size, inputs, outputs, bias, name):
        super().__init__(name)
        with self.name_scope:
            shape = (size, size, inputs, outputs)
            self.kernel = tf.Variable(drawn(shape), name="kernel")
            self.bias = tf.Variable(tf.zeros(outputs), name="bias") if bias else None

    def __call__(self, x):
        y = tf.nn.conv2d(x, self.kernel, 1, "SAME")
        return y if self.bias is None else y + self.bias


def spatial_maps(x):
    return tf.concat([tf.reduce_mean(x, 3, True), tf.reduce_max(x, 3, True)], 3)


class Kobiso(tf.Module):
    """A shared pair of dense layers on (N, 1, 1, C), and a convolution."""

    def __init__(self, channels=32, ratio=8):
        super().__init__("block1")
        with self.name_scope:
            self.mlp = (
                Dense(channels, channels // ratio, "mlp_0"),
                Dense(channels // ratio, channels, "mlp_1"),
            )
            self.conv = Conv(7, 2, 1, False, "conv")

    @tf.function
    def __call__(self, x):
        first, second = self.mlp
        pools = tf.reduce_mean(x, [1, 2], True), tf.reduce_max(x, [1, 2], True)
        x = x * tf.sigmoid(sum(second(tf.nn.relu(first(pool))) for pool in pools))
        return x * tf.sigmoid(self.conv(spatial_maps(x)))


class SeedCbam(tf.Module):
    """1x1 convolutions with biases for the MLP, a biased convolution over the map."""

    def __init__(self, channels=32, reduction=4):
        super().__init__()
        self.one = Conv(1, channels, channels // reduction, True, "CA1")
        self.two = Conv(1, channels // reduction, channels, True, "CA2")
        self.conv = Conv(7, 2, 1, True, "conv2d")

    def __call__(self, x):
        avg = tf.nn.avg_pool2d(x, x.shape[1:3], 1, "VALID")
        largest = tf.nn.max_pool2d(x, x.shape[1:3], 1, "VALID")
        gate = self.two(tf.nn.relu(self.one(avg))) + self.two(tf.nn.relu(self.one(largest)))
        x = tf.nn.sigmoid(gate) * x
        return tf.nn.sigmoid(self.conv(spatial_maps(x))) * x


class KobisoSe(tf.Module):
    def __init__(self, channels=32, ratio=8):
        super().__init__("block1")
        self.bottleneck = Dense(channels, channels // ratio, "bottleneck_fc")
        self.recover = Dense(channels // ratio, channels, "recover_fc")

    def __call__(self, x, is_training):
        squeezed = tf.reduce_mean(x, [1, 2])
        gate = tf.sigmoid(self.recover(tf.nn.relu(self.bottleneck(squeezed))))
        return x * gate[:, None, None, :]


class Normed(tf.Module):
    """A spatial gate behind TF's fused batch norm, which stores the unbiased variance."""

    def __init__(self):
        super().__init__()
        self.conv = Conv(3, 2, 1, False, "conv")
        self.gamma, self.beta = tf.Variable([1.0]), tf.Variable([0.0])
        self.moving_mean, self.moving_variance = tf.Variable([0.0]), tf.Variable([1.0])

    def __call__(self, x, training=False):
        arguments = (self.conv(spatial_maps(x)), self.gamma, self.beta)
        statistics = (self.moving_mean, self.moving_variance)
        y, mean, variance, *_ = tf.compat.v1.nn.fused_batch_norm(
            *arguments,
            *(tf.convert_to_tensor(one) for one in statistics),
            epsilon=1e-3,
            is_training=training,
            exponential_avg_factor=0.05,
        )
        if training:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return x * tf.sigmoid(y)


ROWS = {
    "kobiso": Row(
        Kobiso, CBAMSpec(32, hidden=4, mlp_bias=True), EVENLY | {"presets": ("kobiso",)}
    ),
    "seed_tf1": Row(
        SeedCbam,
        CBAMSpec(32, hidden=8, mlp_bias=True, spatial_bias=True),
        {"ties": {"space": "first", "channels": "even"}},
    ),
    "kobiso_se": Row(
        KobisoSe,
        CBAMSpec(32, hidden=4, mlp_bias=True, channel_pools=("avg",), order="channel"),
    ),
    "fused_norm": Row(
        Normed,
        CBAMSpec(
            16, kernel_size=3, spatial_norm=True, norm_eps=1e-3, norm_momentum=0.05,
            order="spatial",
        ),
        {"running_variance": "unbiased"},
        channels=16,
    ),
}  # fmt: skip
