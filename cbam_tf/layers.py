"""The layers of attentions and networks, in the dtype of their input, whatever their weights'.

The gates compute in at least float32 (see `ops.at_least_float32`), also where the weights are
half-precision numbers. All layers are channels last, with the kernels in the canonical layout.
Kernels start as Keras' he_normal draws them (`tf.random.set_seed` fixes them), biases at 0.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

CHANNEL_AXIS = {"channels_last": -1, "channels_first": 1}

# Standard deviation of a standard normal cut off at two deviations, which Keras' he_normal undoes.
_TRUNCATED_DEVIATION = 0.87962566103423978


class Linear(tf.Module):
    """y = x W + b, in the dtype of x (..., in) -> (..., out)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool,
        dtype: tf.DType = tf.float32,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        with self.name_scope:
            self.kernel = _kernel((inputs, outputs), dtype)
            self.bias = _filled("bias", 0, outputs, dtype) if bias else None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return _add_bias(tf.tensordot(x, tf.cast(self.kernel, x.dtype), 1), self.bias)


class Conv(tf.Module):
    """A convolution padded alike on both sides, in the dtype of x (N, *S, in) -> (N, *S', out)."""

    def __init__(
        self,
        rank: int,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool,
        dtype: tf.DType = tf.float32,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.layout = {1: "NWC", 2: "NHWC", 3: "NDHWC"}[rank]
        self.stride, self.groups = stride, groups
        shape = (kernel_size,) * rank + (inputs // groups, outputs)
        with self.name_scope:
            self.kernel = _kernel(shape, dtype)
            self.bias = _filled("bias", 0, outputs, dtype) if bias else None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if x.shape[0]:
            return self.convolve(x)
        # TensorFlow's oneDNN kernels give an empty batch the channels of x, so a map of 0 joins it.
        batch = tf.shape(x)[0]
        padding = [[0, tf.cast(batch == 0, tf.int32)], *[[0, 0]] * (len(x.shape) - 1)]
        return self.convolve(tf.pad(x, padding))[:batch]

    def convolve(self, x: tf.Tensor) -> tf.Tensor:
        """At stride 1 and an odd size k, SAME pads k // 2 on both sides."""
        kernel, padding = tf.cast(self.kernel, x.dtype), "SAME"
        if self.stride > 1:
            sides = [[size // 2, size // 2] for size in kernel.shape[:-2]]
            x, padding = tf.pad(x, [[0, 0], *sides, [0, 0]]), "VALID"
        if self.groups > 1 and self.groups == x.shape[-1] and self.layout == "NHWC":
            return _add_bias(_depthwise(x, kernel, self.stride, padding), self.bias)
        kernel = _block_diagonal(kernel, self.groups) if self.groups > 1 else kernel
        y = tf.nn.convolution(x, kernel, self.stride, padding, data_format=self.layout)
        return _add_bias(y, self.bias)


class BatchNorm(tf.Module):
    """Batch norm over (N, *S, C) of any rank, whose weights and statistics are at least float32.

    Training normalises with the biased variance and keeps the unbiased one; tf.nn and Keras have
    no norm that does so for every rank. A batch of 0 leaves the statistics as they are. Where
    `synchronized`, the batch is that of all replicas of a tf.distribute strategy.
    """

    def __init__(
        self,
        channels: int,
        eps: float,
        momentum: float,
        *,
        dtype: tf.DType = tf.float32,
        synchronized: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.eps, self.momentum, self.synchronized = eps, momentum, synchronized
        dtype = tf.as_dtype(dtype) if tf.as_dtype(dtype).size >= 4 else tf.float32
        # Under a tf.distribute strategy each replica has its own statistics, saved as their mean.
        statistic = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
        }
        with self.name_scope:
            self.scale = _filled("scale", 1, channels, dtype)
            self.bias = _filled("bias", 0, channels, dtype)
            self.mean = _filled("mean", 0, channels, dtype, **statistic)
            self.var = _filled("var", 1, channels, dtype, **statistic)

    def moments(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and biased variance (C,) of x (N, *S, C)."""
        axes, count = tuple(range(len(x.shape) - 1)), self.positions(x)
        mean = self.total(tf.reduce_sum(x, axes)) / count
        # The slope of the variance by the mean is 0.
        squares = tf.math.squared_difference(x, tf.stop_gradient(mean))
        return mean, self.total(tf.reduce_sum(squares, axes)) / count

    def positions(self, x: tf.Tensor) -> tf.Tensor:
        """How many values `moments` takes for each channel."""
        return self.total(tf.cast(tf.size(x, tf.int64) // x.shape[-1], x.dtype))

    def total(self, values: tf.Tensor) -> tf.Tensor:
        """`values`, or their sum over all replicas."""
        context = tf.distribute.get_replica_context()
        if not self.synchronized or context is None:
            return values
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    def update(self, x: tf.Tensor, mean: tf.Tensor, var: tf.Tensor) -> None:
        """Move the running statistics towards those of the batch x, unless it has no variance."""
        count = self.positions(x)
        unbiased = var * (count / (count - 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            moved = (1 - self.momentum) * running + self.momentum * new
            running.assign(tf.where(count > 1, moved, running))

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        wide = tf.cast(x, self.scale.dtype)
        mean, var = self.mean, self.var
        if training:
            if not self.synchronized and x.shape.num_elements() == x.shape[-1]:
                raise ValueError(
                    f"{self.name} sees one position in all (shape {tuple(x.shape)}), and batch "
                    f"statistics need at least 2; pass a larger batch or picture, or switch to "
                    f"evaluation"
                )
            mean, var = self.moments(wide)
            self.update(wide, mean, var)
        normal = (wide - mean) / tf.sqrt(var + self.eps)
        return tf.cast(normal * self.scale + self.bias, x.dtype)


class Dropout(tf.Module):
    """x / (1 - rate), of which a share of `rate` is replaced by 0 in training; x otherwise."""

    def __init__(self, rate: float, name: str | None = None) -> None:
        super().__init__(name)
        self.rate = rate

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.nn.dropout(x, self.rate) if training else x


class Identity(tf.Module):
    """x, where a network has no layer at a place that may have one."""

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return x


def check_data_format(data_format: str) -> str:
    """`data_format`, a key of CHANNEL_AXIS."""
    if data_format not in CHANNEL_AXIS:
        raise ValueError(
            f"data_format={data_format!r} is unknown; choose from {', '.join(CHANNEL_AXIS)}"
        )
    return data_format


# Values are drawn when the variable is created, so that a tf.function may build a module.
def _kernel(shape: tuple[int, ...], dtype: tf.DType) -> tf.Variable:
    deviation = math.sqrt(2 / math.prod(shape[:-1])) / _TRUNCATED_DEVIATION
    return tf.Variable(
        lambda: tf.random.truncated_normal(shape, stddev=deviation, dtype=dtype), name="kernel"
    )


def _filled(name: str, value: int, size: int, dtype: tf.DType, **options: Any) -> tf.Variable:
    return tf.Variable(lambda: tf.cast(tf.fill([size], value), dtype), name=name, **options)


def _depthwise(x: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    """Every channel of x (N, H, W, C) by its own filters of the kernel (k, k, 1, out)."""
    *size, _, outputs = kernel.shape
    kernel = tf.reshape(kernel, (*size, x.shape[-1], outputs // x.shape[-1]))
    return tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), padding)


def _block_diagonal(kernel: tf.Tensor, groups: int) -> tf.Tensor:
    """A kernel (*K, in / groups, out) as (*K, in, out), with zeros from one group to another.

    TensorFlow has no gradient of a grouped convolution on a CPU, and XLA's takes seconds there:
    several times what the zeros cost.
    """
    *size, inputs, outputs = kernel.shape
    blocks = tf.reshape(kernel, (*size, 1, inputs, groups, outputs // groups))
    diagonal = tf.reshape(tf.eye(groups, dtype=kernel.dtype), (groups, 1, groups, 1))
    return tf.reshape(blocks * diagonal, (*size, groups * inputs, outputs))


def _add_bias(y: tf.Tensor, bias: tf.Variable | None) -> tf.Tensor:
    return y if bias is None else y + tf.cast(bias, y.dtype)
