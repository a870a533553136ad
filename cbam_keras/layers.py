"""Linear, convolution and batch norm, and the base class of the attention layers.

The gates compute in at least float32 (see `ops.at_least_float32`) with weights in at least
float32, whatever the dtype policy of the layer around them, and so do norms. All but the base
class are channels last.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import KerasTensor as Tensor

from cbam_core import CBAMSpec, check_input
from cbam_keras import ops, replicas

DATA_FORMATS = ("channels_last", "channels_first")


def _value(variable: keras.Variable) -> Tensor:
    """The backend's own tensor, whose operators keep float64 where a variable's do not."""
    return keras.ops.convert_to_tensor(variable)


class Linear(keras.layers.Dense):
    """y = x W + b, (..., in) -> (..., out).

    The product is the backend's own: `keras.ops.matmul` on torch turns float64 into float32.
    """

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        y = x @ _value(self.kernel)
        return y if self.bias is None else y + _value(self.bias)


class Conv1D(keras.layers.Conv1D):
    """A convolution (N, L, in) -> (N, L', out), padded alike on both sides."""

    # That of Keras' own class, alone of the three, does not go through `convolution_op`.
    def call(self, x: Tensor) -> Tensor:
        y = _convolve(self, x, _value(self.kernel))
        return y if self.bias is None else y + _value(self.bias)


class Conv2D(keras.layers.Conv2D):
    """A convolution (N, H, W, in) -> (N, H', W', out), padded alike on both sides."""

    def convolution_op(self, x: Tensor, kernel: Tensor) -> Tensor:
        return _convolve(self, x, kernel)


class Conv3D(keras.layers.Conv3D):
    """A convolution (N, D, H, W, in) -> (N, D', H', W', out), padded alike on both sides."""

    def convolution_op(self, x: Tensor, kernel: Tensor) -> Tensor:
        return _convolve(self, x, kernel)


CONV: dict[int, type[Any]] = {1: Conv1D, 2: Conv2D, 3: Conv3D}


def _convolve(layer: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """At stride 1 and an odd size k, "same" pads k // 2 on both sides."""
    if x.shape[0] == 0:
        # TensorFlow's oneDNN kernels return an empty batch as it is, so a map of 0 joins it.
        joined = keras.ops.pad(x, [(0, 1), *[(0, 0)] * (layer.rank + 1)])
        return _convolve(layer, joined, kernel)[:0]
    options = {"strides": layer.strides, "padding": "same", "data_format": "channels_last"}
    if max(layer.strides) > 1:
        sides = [(size // 2, size // 2) for size in layer.kernel_size]
        x = keras.ops.pad(x, [(0, 0), *sides, (0, 0)])
        options["padding"] = "valid"
    if layer.groups == x.shape[-1] and layer.groups > 1 and layer.rank == 2:
        return keras.ops.depthwise_conv(x, _depthwise(_in_torch_order(kernel), x), **options)
    if layer.groups > 1:
        kernel = _block_diagonal(kernel, layer.groups)
    # In a graph of unknown batch size too, where that leaves it the channels of x.
    return keras.ops.conv(x, _in_torch_order(kernel), **options)[..., : layer.filters]


def _depthwise(kernel: Tensor, x: Tensor) -> Tensor:
    """A kernel (k, k, 1, out) as (k, k, C, out / C) for x (N, H, W, C)."""
    *size, _, filters = kernel.shape
    return keras.ops.reshape(kernel, (*size, x.shape[-1], filters // x.shape[-1]))


def _block_diagonal(kernel: Tensor, groups: int) -> Tensor:
    """A kernel (*K, in / groups, out) as (*K, in, out), with zeros from one group to another.

    XLA's gradient of a grouped convolution takes seconds on a CPU, several times what the zeros
    cost, and TensorFlow has none without XLA.
    """
    *size, inputs, outputs = kernel.shape
    blocks = keras.ops.reshape(kernel, (*size, 1, inputs, groups, outputs // groups))
    diagonal = keras.ops.reshape(keras.ops.eye(groups, dtype=blocks.dtype), (groups, 1, groups, 1))
    return keras.ops.reshape(blocks * diagonal, (*size, groups * inputs, outputs))


def _in_torch_order(kernel: Tensor) -> Tensor:
    """A kernel (*K, in, out) that lies in memory as (out, in, *K).

    Keras on torch hands a permuted view of it to the convolution, of which torch has no gradient
    in float64 on a CPU ("grad_weight must be contiguous") unless it lies so.
    """
    rank = len(kernel.shape) - 2
    own = keras.ops.transpose(kernel, (rank + 1, rank, *range(rank)))
    own = keras.ops.reshape(keras.ops.reshape(own, (-1,)), own.shape)
    return keras.ops.transpose(own, (*range(2, rank + 2), 1, 0))


class BatchNorm(keras.layers.Layer):
    """Batch norm over (N, *S, C) of any rank, with PyTorch's statistics.

    Training normalises with the biased variance and keeps the unbiased one, where Keras' own
    layer keeps the biased one. A layer that is not trainable uses its running statistics, as there.
    Weights, statistics and arithmetic are in at least float32, whatever the dtype policy. Where
    `synchronized`, the batch is that of all replicas of a tf.distribute strategy.
    """

    def __init__(
        self, eps: float, momentum: float, *, synchronized: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.eps, self.momentum = eps, momentum
        self.synchronized = replicas.check_synchronized(synchronized)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        wide = {
            "shape": (input_shape[-1],),
            "dtype": "float64" if self.variable_dtype == "float64" else "float32",
            "autocast": False,
        }
        self.scale = self.add_weight(initializer="ones", name="scale", **wide)
        self.bias = self.add_weight(initializer="zeros", name="bias", **wide)
        self.mean = self.add_weight(initializer="zeros", trainable=False, name="mean", **wide)
        self.var = self.add_weight(initializer="ones", trainable=False, name="var", **wide)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        scale, bias, mean, var = map(_value, (self.scale, self.bias, self.mean, self.var))
        wide = ops.at_least_float32(x)
        centred = wide - mean
        if training and self.trainable:
            is_whole = not self.synchronized and None not in x.shape
            if is_whole and math.prod(x.shape[:-1]) == 1:
                raise ValueError(
                    f"{self.name} sees one position in all (shape {tuple(x.shape)}), and batch "
                    f"statistics need at least 2; pass a larger batch or picture, or switch to "
                    f"evaluation"
                )
            centred, mean, var = self.moments(wide)
            self.update(wide, mean, var)
        y = centred / keras.ops.sqrt(var + self.eps) * scale + bias
        return keras.ops.cast(y, x.dtype)

    def update(self, x: Tensor, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards those of the batch x, if it has any.

        A batch of 0 has neither, and one position, which only a graph of unknown sizes may have
        here, no unbiased variance.
        """
        count = self.positions(x)
        unbiased = var * (count / (count - 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            moved = (1 - self.momentum) * _value(running) + self.momentum * new
            running.assign(keras.ops.where(count > 1, moved, _value(running)))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x without its mean, and over all axes but the last the mean and the biased variance (C,).

        The mean is taken off twice: what rounding leaves of it in the backward pass would be summed
        up in the gradients of the layer before, where it can be a hundred times the rounding of all
        else.
        """
        count = self.positions(x)

        def average(values: Tensor) -> Tensor:
            return self.total(keras.ops.sum(values, tuple(range(x.ndim - 1)))) / count

        mean = average(x)
        centred = x - mean
        centred = centred - average(centred)
        return centred, mean, average(keras.ops.square(centred))

    def positions(self, x: Tensor) -> int | Tensor:
        """How many values `moments` takes for each channel."""
        count = ops.count(x, tuple(range(x.ndim - 1)))
        return self.total(keras.ops.cast(count, x.dtype)) if self.synchronized else count

    def total(self, values: Tensor) -> Tensor:
        """`values`, or their sum over all replicas."""
        return replicas.total(values) if self.synchronized else values

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


class FeatureMapLayer(keras.layers.Layer):
    """What Keras wants of a layer on (N, *S, C) or (N, C, *S) that keeps the shape.

    A subclass adds `make_layers` and `call`.

    Attributes:
        channels: as the constructor got it; None where `build` is to find it.
        declared: the spec of the constructor's arguments, with one channel for an unknown number.
        data_format: "channels_last" or "channels_first".
        kernels: whether the primitives may have gradients and kernels of their own.
        synchronized: whether a norm takes its statistics over all replicas.
    """

    synchronized = False

    def __init__(
        self,
        channels: int | None,
        data_format: str | None,
        kernels: bool,
        layer_arguments: dict[str, Any],
        **spec_arguments: Any,
    ) -> None:
        super().__init__(**layer_arguments)
        self.declared = CBAMSpec(1 if channels is None else channels, **spec_arguments)
        self.channels = None if channels is None else self.declared.channels
        self._spec = None if channels is None else self.declared
        self.data_format, self.kernels = check_data_format(data_format), kernels

    @property
    def channel_axis(self) -> int:
        return 1 if self.data_format == "channels_first" else -1

    @property
    def gate_dtype(self) -> str:
        """The dtype of the weights and of the gates' arithmetic."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    @property
    def spec(self) -> CBAMSpec:
        """What the layer is; a ValueError until its channels are known."""
        if self._spec is None:
            raise ValueError(
                f"{self!r} does not know its channels yet; call it, build it with the shape of "
                f"its input, or pass channels= to its constructor"
            )
        return self._spec

    def make_layers(self, spec: CBAMSpec) -> None:
        """Make and build what the layer consists of."""
        raise NotImplementedError

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        """Make the weights; where the channels are known, no shape is needed."""
        if input_shape is not None:
            spec = self._spec or self.declared.replace(channels=self._channels_of(input_shape))
            check_input(spec, input_shape, self.gate_dtype, channel_axis=self.channel_axis)
            self._spec = spec
        # Loading weights may have built the layer before the model around it does.
        if not self.built:
            self.make_layers(self.spec)

    def _channels_of(self, input_shape: tuple[int | None, ...]) -> int:
        if len(input_shape) != self.declared.rank + 2:
            return 1  # check_input names the number of axes.
        channels = input_shape[self.channel_axis]
        if channels is None:
            raise ValueError(
                f"x has an unknown number of channels (shape {tuple(input_shape)}), expected a "
                f"number on axis {self.channel_axis} for data_format={self.data_format!r}; pass "
                f"channels= or give the input a shape with its channels"
            )
        return channels

    def accept(self, x: Tensor, training: bool = False) -> Tensor:
        """x as a tensor (N, *S, C) of the policy's dtype, checked; the first builds the layer."""
        x = self.dtype_policy.convert_input(x, self.autocast, self.input_dtype)
        if not self.built:
            self.build(x.shape)
        has_norm = self.spec.has_spatial_gate and self.spec.spatial_norm
        check_input(
            self.spec,
            x.shape,
            x.dtype,
            channel_axis=self.channel_axis,
            batch_statistics=bool(
                has_norm and training and self.trainable and not self.synchronized
            ),
        )
        return self.to_channels_last(x)

    def to_channels_last(self, x: Tensor | None) -> Tensor | None:
        return x if x is None or self.channel_axis == -1 else keras.ops.moveaxis(x, 1, -1)

    def from_channels_last(self, x: Tensor) -> Tensor:
        return x if self.channel_axis == -1 else keras.ops.moveaxis(x, -1, 1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def compute_output_spec(self, x: Tensor, training: bool = False) -> keras.KerasTensor:
        x = self.from_channels_last(self.accept(x, training))
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channels": self.channels,
            "data_format": self.data_format,
            **({} if self.kernels else {"kernels": False}),
        }

    def arguments(self, *fixed: str) -> str:
        """The constructor arguments that `repr` shows; see `CBAMSpec.arguments`."""
        kernels = [] if self.kernels else ["kernels=False"]
        if self._spec is not None:
            return ", ".join([self._spec.arguments(*fixed), *kernels])
        known = self.declared.arguments(*fixed).partition(", ")[2]
        return ", ".join([known, *kernels] if known else kernels)


def check_data_format(data_format: str | None) -> str:
    """`data_format`, one of DATA_FORMATS; Keras' own setting if None."""
    if data_format not in (None, *DATA_FORMATS):
        raise ValueError(
            f"data_format={data_format!r} is unknown; choose from {', '.join(DATA_FORMATS)}"
        )
    return data_format or keras.config.image_data_format()
