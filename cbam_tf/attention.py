"""CBAM, its two gates, and squeeze-and-excitation, for TensorFlow.

    channel   Mc = gate( MLP(avg over space) + MLP(max over space) ),  MLP(v) = W1 relu(W0 v)
    spatial   Ms = gate( conv_kxk [avg over channels ; max over channels] )
    x' = Mc * x        y = Ms(x') * x'

Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, https://arxiv.org/abs/1807.06521.
Feature maps are (N, *S, C) with one to three spatial axes S, or (N, C, *S) where data_format is
"channels_first", in float16, bfloat16, float32 or float64; the gates compute in at least float32,
and the output has the dtype of the input. Sizes may be unknown until a graph runs. `training`, a
Python bool, is whether a spatial norm takes its statistics from x and moves the running ones.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from cbam_core import CBAMSpec, check_input, spatial_maps
from cbam_tf import ops
from cbam_tf.layers import CHANNEL_AXIS, BatchNorm, Conv, Linear, check_data_format


class ChannelAttention(tf.Module):
    """x' = Mc(x) * x with Mc = gate( sum over the pools of MLP(pool over space) ), eq. (2).

    Args:
        channels, reduction, hidden, mlp_bias, channel_pools, gate, pooling, rank: see
            `cbam_core.CBAMSpec`.
        data_format: "channels_last", or "channels_first" for x (N, C, *S).
        dtype: of the parameters.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, *S, C) -> x' (N, *S, C); `gate(x)` is Mc (N, 1.., C).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for.

    Example:
        >>> import tensorflow as tf
        >>> from cbam_tf import ChannelAttention
        >>> attention = ChannelAttention(64, reduction=8)
        >>> attention(tf.random.normal([2, 7, 7, 64])).shape
        TensorShape([2, 7, 7, 64])
        >>> attention.gate(tf.random.normal([2, 7, 7, 64])).shape
        TensorShape([2, 1, 1, 64])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        hidden: int | None = None,
        mlp_bias: bool = False,
        channel_pools: tuple[str, ...] = ("avg", "max"),
        gate: str = "sigmoid",
        pooling: str = "separate",
        rank: int = 2,
        data_format: str = "channels_last",
        dtype: tf.DType = tf.float32,
        kernels: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.data_format, self.kernels = check_data_format(data_format), kernels
        self.spec = spec = CBAMSpec(
            channels,
            reduction=reduction,
            hidden=hidden,
            mlp_bias=mlp_bias,
            channel_pools=channel_pools,
            gate=gate,
            order="channel",
            pooling=pooling,
            rank=rank,
        )
        channels, hidden = spec.channels, spec.hidden_channels
        with self.name_scope:
            self.reduce = Linear(channels, hidden, bias=mlp_bias, dtype=dtype, name="reduce")
            self.expand = Linear(hidden, channels, bias=mlp_bias, dtype=dtype, name="expand")

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> ChannelAttention:
        """The channel gate of `spec`; `options` are data_format, dtype, kernels, name."""
        return cls(**spec.channel_arguments(), **options)

    def mlp(self, v: tf.Tensor) -> tf.Tensor:
        """W1 relu(W0 v): (..., C) -> (..., C)."""
        return self.expand(ops.relu(self.reduce(v)))

    def gate(self, x: tf.Tensor, spatial: tf.Tensor | None = None) -> tf.Tensor:
        """Mc (N, 1.., C) of x (N, *S, C), or of Ms * x, in at least float32."""
        channel = self.attend(accepted(self, x), _channels_last(self, spatial))[1]
        return like_input(self, channel)

    def attend(self, x: tf.Tensor, spatial: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """x (N, *S, C), handed on as the primitives do, and Mc."""
        x, pooled = ops.pool_space(x, self.spec.channel_pools, spatial, kernels=self.kernels)
        descriptors = tf.stack(pooled)
        if self.spec.pooling == "light":
            descriptors = tf.reduce_mean(descriptors, 0, keepdims=True)
        logits = tf.reduce_sum(self.mlp(descriptors), 0)
        return x, ops.GATES[self.spec.gate](logits)[(slice(None), *[None] * self.spec.rank)]

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x, channel = self.attend(accepted(self, x))
        return like_input(self, ops.scale(x, channel, kernels=self.kernels))

    def __repr__(self) -> str:
        return _repr(self, "order")


class SpatialAttention(tf.Module):
    """y = Ms(x) * x with Ms = gate( conv_kxk [avg over channels ; max over channels] ), eq. (3).

    Args:
        channels, kernel_size, spatial_bias, spatial_norm, gate, pooling, spatial_descriptor,
            norm_eps, norm_momentum, rank: see `cbam_core.CBAMSpec`.
        data_format: "channels_last", or "channels_first" for x (N, C, *S).
        dtype: of the parameters; a norm's stay at least float32.
        synchronized: whether a norm takes its statistics over all replicas of a tf.distribute
            strategy.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, *S, C) -> y (N, *S, C); `gate(x)` is Ms (N, *S, 1).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for, or too small for batch statistics.

    Example:
        >>> import tensorflow as tf
        >>> from cbam_tf import SpatialAttention
        >>> attention = SpatialAttention(64, spatial_norm=True)
        >>> attention.gate(tf.random.normal([2, 7, 7, 64])).shape
        TensorShape([2, 7, 7, 1])
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 7,
        spatial_bias: bool = False,
        spatial_norm: bool = False,
        gate: str = "sigmoid",
        pooling: str = "separate",
        spatial_descriptor: str = "pool",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        rank: int = 2,
        data_format: str = "channels_last",
        dtype: tf.DType = tf.float32,
        synchronized: bool = False,
        kernels: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.data_format, self.kernels = check_data_format(data_format), kernels
        self.synchronized = synchronized
        self.spec = spec = CBAMSpec(
            channels,
            kernel_size=kernel_size,
            spatial_bias=spatial_bias,
            spatial_norm=spatial_norm,
            gate=gate,
            order="spatial",
            pooling=pooling,
            spatial_descriptor=spatial_descriptor,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
            rank=rank,
        )
        maps, size = spatial_maps(spec), spec.kernel_size
        with self.name_scope:
            if spatial_descriptor == "conv":
                self.squeeze = Linear(spec.channels, 1, bias=False, dtype=dtype, name="squeeze")
            self.conv = Conv(rank, maps, 1, size, bias=spatial_bias, dtype=dtype, name="conv")
            if spatial_norm:
                self.norm = BatchNorm(
                    1,
                    norm_eps,
                    norm_momentum,
                    dtype=dtype,
                    synchronized=synchronized,
                    name="norm",
                )

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> SpatialAttention:
        """The spatial gate of `spec`; `options` are those after the spec's."""
        return cls(**spec.spatial_arguments(), **options)

    def descriptor(
        self, x: tf.Tensor, channel: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """x, and [avg ; max] over channels, their mean, or a 1x1 convolution: (N, *S, 1 or 2)."""
        if self.spec.spatial_descriptor == "conv":
            return x, self.squeeze(
                ops.scale(ops.at_least_float32(x), channel, kernels=self.kernels)
            )
        x, pooled = ops.pool_channels(x, channel, kernels=self.kernels)
        maps = tf.concat(pooled, -1)
        light = self.spec.pooling == "light"
        return x, tf.reduce_mean(maps, -1, keepdims=True) if light else maps

    def gate(
        self, x: tf.Tensor, channel: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """Ms (N, *S, 1) of x (N, *S, C), or of Mc * x, in at least float32."""
        x, channel = accepted(self, x, training), _channels_last(self, channel)
        return like_input(self, self.attend(x, channel, training)[1])

    def attend(
        self, x: tf.Tensor, channel: tf.Tensor | None = None, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """x (N, *S, C), handed on as the primitives do, and Ms."""
        x, descriptor = self.descriptor(x, channel)
        logits = self.conv(descriptor)
        if self.spec.spatial_norm:
            logits = self.norm(logits, training=training)
        return x, ops.GATES[self.spec.gate](logits)

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x, spatial = self.attend(accepted(self, x, training), training=training)
        return like_input(self, ops.scale(x, spatial=spatial, kernels=self.kernels))

    def __repr__(self) -> str:
        return _repr(self, "order")


class CBAM(tf.Module):
    """y = Ms(x') * x' with x' = Mc(x) * x, eq. (1); other orders as `order` says.

    Args:
        channels, reduction, ...: see `cbam_core.CBAMSpec`; the defaults are the paper's equations.
        data_format: "channels_last", or "channels_first" for x (N, C, *S).
        dtype: of the parameters; a norm's stay at least float32.
        synchronized: whether a norm takes its statistics over all replicas of a tf.distribute
            strategy.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, *S, C) -> y (N, *S, C).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for, or too small for batch statistics.

    Example:
        >>> import tensorflow as tf
        >>> from cbam_core import CBAMSpec
        >>> from cbam_tf import CBAM
        >>> CBAM(64, reduction=8)(tf.random.normal([2, 7, 7, 64])).shape
        TensorShape([2, 7, 7, 64])
        >>> CBAM.from_spec(CBAMSpec.preset("luuuyi", 64, kernel_size=3))
        CBAM(64, kernel_size=3)
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        hidden: int | None = None,
        mlp_bias: bool = False,
        channel_pools: tuple[str, ...] = ("avg", "max"),
        kernel_size: int = 7,
        spatial_bias: bool = False,
        spatial_norm: bool = False,
        gate: str = "sigmoid",
        order: str = "channel_spatial",
        pooling: str = "separate",
        spatial_descriptor: str = "pool",
        residual: bool = False,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        rank: int = 2,
        data_format: str = "channels_last",
        dtype: tf.DType = tf.float32,
        synchronized: bool = False,
        kernels: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.data_format, self.kernels = check_data_format(data_format), kernels
        self.synchronized = synchronized
        self.spec = spec = CBAMSpec(
            channels,
            reduction=reduction,
            hidden=hidden,
            mlp_bias=mlp_bias,
            channel_pools=channel_pools,
            kernel_size=kernel_size,
            spatial_bias=spatial_bias,
            spatial_norm=spatial_norm,
            gate=gate,
            order=order,
            pooling=pooling,
            spatial_descriptor=spatial_descriptor,
            residual=residual,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
            rank=rank,
        )
        options: dict[str, Any] = {
            "data_format": data_format, "dtype": dtype, "kernels": kernels,
        }  # fmt: skip
        with self.name_scope:
            if spec.has_channel_gate:
                self.channel = ChannelAttention.from_spec(spec, **options, name="channel")
            if spec.has_spatial_gate:
                options["synchronized"] = synchronized
                self.spatial = SpatialAttention.from_spec(spec, **options, name="spatial")

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> CBAM:
        """The block of `spec`; `options` are those after the spec's."""
        return cls(**spec.to_dict(), **options)

    @tf.autograph.experimental.do_not_convert  # AutoGraph does not know `match`.
    def gates(
        self, x: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None]:
        """x (N, *S, C) handed on, Mc and Ms in the order of the spec; None for a gate it lacks."""
        channel = spatial = None
        match self.spec.order:
            case "channel_spatial":
                x, channel = self.channel.attend(x)
                x, spatial = self.spatial.attend(x, channel, training)
            case "spatial_channel":
                x, spatial = self.spatial.attend(x, None, training)
                x, channel = self.channel.attend(x, spatial)
            case "parallel":
                x, channel = self.channel.attend(x)
                x, spatial = self.spatial.attend(x, None, training)
            case "channel":
                x, channel = self.channel.attend(x)
            case _:
                x, spatial = self.spatial.attend(x, None, training)
        return x, channel, spatial

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x, channel, spatial = self.gates(accepted(self, x, training), training)
        y = ops.scale(x, channel, spatial, residual=self.spec.residual, kernels=self.kernels)
        return like_input(self, y)

    def __repr__(self) -> str:
        return _repr(self)


class SqueezeExcitation(ChannelAttention):
    """x' = gate( MLP(avg over space) ) * x, the special case of a channel gate with one pool.

    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507.

    Args:
        channels, reduction, hidden, mlp_bias, gate, rank: see `cbam_core.CBAMSpec`.
        data_format: "channels_last", or "channels_first" for x (N, C, *S).
        dtype: of the parameters.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, *S, C) -> x' (N, *S, C); `gate(x)` is (N, 1.., C).

    Example:
        >>> import tensorflow as tf
        >>> from cbam_tf import SqueezeExcitation
        >>> SqueezeExcitation(64, mlp_bias=True)(tf.random.normal([2, 7, 7, 64])).shape
        TensorShape([2, 7, 7, 64])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        hidden: int | None = None,
        mlp_bias: bool = False,
        gate: str = "sigmoid",
        rank: int = 2,
        data_format: str = "channels_last",
        dtype: tf.DType = tf.float32,
        kernels: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            channels,
            reduction=reduction,
            hidden=hidden,
            mlp_bias=mlp_bias,
            channel_pools=("avg",),
            gate=gate,
            rank=rank,
            data_format=data_format,
            dtype=dtype,
            kernels=kernels,
            name=name,
        )

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> SqueezeExcitation:
        """The block of a squeeze-and-excitation `spec`; `options` as a channel gate's."""
        return cls(**spec.squeeze_excitation_arguments(), **options)

    def __repr__(self) -> str:
        return _repr(self, "order", "channel_pools")


def _repr(module: Any, *fixed: str) -> str:
    """The call that builds the module, without its `fixed` arguments."""
    is_default = module.data_format == "channels_last"
    data_format = "" if is_default else f", data_format={module.data_format!r}"
    kernels = "" if module.kernels else ", kernels=False"
    return f"{type(module).__name__}({module.spec.arguments(*fixed)}{data_format}{kernels})"


def accepted(module: Any, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """x, checked, in the layout (N, *S, C) in which the gates compute on every device."""
    x, axes = tf.convert_to_tensor(x), module.spec.rank + 2
    has_norm = module.spec.has_spatial_gate and module.spec.spatial_norm
    # A batch that other replicas share may be a single position on this one.
    batch_statistics = has_norm and training and not module.synchronized
    check_input(
        module.spec,
        (None,) * axes if x.shape.rank is None else tuple(x.shape),
        x.dtype,
        channel_axis=CHANNEL_AXIS[module.data_format],
        batch_statistics=batch_statistics,
    )
    if not x.shape.is_fully_defined():
        x = _checked_when_it_runs(module, x, batch_statistics)
    return _channels_last(module, x)


def _channels_last(module: Any, x: tf.Tensor | None) -> tf.Tensor | None:
    """x in the layout of the module's input, or a gate, as (N, *S, C)."""
    if x is None or module.data_format == "channels_last":
        return x
    return tf.transpose(x, (0, *range(2, module.spec.rank + 2), 1))


def _checked_when_it_runs(module: Any, x: tf.Tensor, batch_statistics: bool) -> tf.Tensor:
    """x with its rank and channels, behind assertions on the sizes that a graph does not know."""
    static = [None] * (module.spec.rank + 2)
    static[CHANNEL_AXIS[module.data_format]] = module.spec.channels
    x = tf.ensure_shape(x, static)
    assertions = []
    if not x.shape[1:].is_fully_defined():
        sizes = tf.shape(x)[1:]
        assertions.append(tf.debugging.assert_positive(sizes, "x has a map without positions"))
    if batch_statistics:
        single = tf.constant(module.spec.channels, tf.int64)
        message = "x has one position in all, and batch statistics need at least 2"
        size = tf.size(x, tf.int64)
        assertions.append(tf.debugging.assert_none_equal(size, single, message=message))
    with tf.control_dependencies(assertions):
        return tf.identity(x)


def like_input(module: Any, x: tf.Tensor) -> tf.Tensor:
    """x (N, *S, C), or a gate, in the layout of the module's input."""
    if module.data_format == "channels_last":
        return x
    axes = module.spec.rank + 2
    return tf.transpose(x, (0, axes - 1, *range(1, axes - 1)))
