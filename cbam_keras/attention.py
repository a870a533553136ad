"""CBAM, its two gates, and squeeze-and-excitation, for Keras 3 on any backend.

    channel   Mc = gate( MLP(avg over space) + MLP(max over space) ),  MLP(v) = W1 relu(W0 v)
    spatial   Ms = gate( conv_kxk [avg over channels ; max over channels] )
    x' = Mc * x        y = Ms(x') * x'

Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, https://arxiv.org/abs/1807.06521.
Feature maps are (N, *S, C) with one to three spatial axes S, or (N, C, *S) where data_format is
"channels_first". The dtype policy of a layer is that of its input and output; the gates compute
in at least float32 under every policy, with weights in at least float32. Sizes may be unknown
until a graph runs, channels until the layer is built.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor as Tensor

from cbam_core import CBAMSpec, spatial_maps
from cbam_keras import ops
from cbam_keras.layers import CONV, BatchNorm, FeatureMapLayer, Linear


@keras.saving.register_keras_serializable(package="cbam")
class ChannelAttention(FeatureMapLayer):
    """x' = Mc(x) * x with Mc = gate( sum over the pools of MLP(pool over space) ), eq. (2).

    Args:
        channels, reduction, hidden, mlp_bias, channel_pools, gate, pooling, rank: see
            `cbam_core.CBAMSpec`; where `channels` is None the first input tells.
        data_format: "channels_last", "channels_first" or None for Keras' own setting.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        **kwargs: name, dtype and the like, see `keras.layers.Layer`.

    Shape:
        x (N, *S, C) -> x' (N, *S, C); `gate(x)` is Mc (N, 1.., C).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the layer was built for.

    Example:
        >>> import keras
        >>> from cbam_keras import ChannelAttention
        >>> attention = ChannelAttention(64, reduction=8)
        >>> tuple(attention(keras.random.normal((2, 7, 7, 64))).shape)
        (2, 7, 7, 64)
        >>> tuple(attention.gate(keras.random.normal((2, 7, 7, 64))).shape)
        (2, 1, 1, 64)
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        reduction: int = 16,
        hidden: int | None = None,
        mlp_bias: bool = False,
        channel_pools: tuple[str, ...] = ("avg", "max"),
        gate: str = "sigmoid",
        pooling: str = "separate",
        rank: int = 2,
        data_format: str | None = None,
        kernels: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            channels,
            data_format,
            kernels,
            kwargs,
            reduction=reduction,
            hidden=hidden,
            mlp_bias=mlp_bias,
            channel_pools=channel_pools,
            gate=gate,
            order="channel",
            pooling=pooling,
            rank=rank,
        )

    def make_layers(self, spec: CBAMSpec) -> None:
        options: dict[str, Any] = {"use_bias": spec.mlp_bias, "dtype": self.gate_dtype}
        self.reduce = Linear(spec.hidden_channels, name="reduce", **options)
        self.expand = Linear(spec.channels, name="expand", **options)
        self.reduce.build((None, spec.channels))
        self.expand.build((None, spec.hidden_channels))

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> ChannelAttention:
        """The channel gate of `spec`; `options` are those after the spec's."""
        return cls(**spec.channel_arguments(), **options)

    def mlp(self, v: Tensor) -> Tensor:
        """W1 relu(W0 v): (..., C) -> (..., C)."""
        return self.expand(ops.relu(self.reduce(v)))

    def gate(self, x: Tensor, spatial: Tensor | None = None) -> Tensor:
        """Mc (N, 1.., C) of x (N, *S, C), or of Ms * x, in at least float32."""
        x, spatial = self.accept(x), self.to_channels_last(spatial)
        return self.from_channels_last(self.attend(x, spatial)[1])

    def attend(self, x: Tensor, spatial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (N, *S, C), handed on as the primitives do, and Mc."""
        x, pooled = ops.pool_space(x, self.spec.channel_pools, spatial, kernels=self.kernels)
        descriptors = keras.ops.stack(pooled)
        if self.spec.pooling == "light":
            descriptors = keras.ops.sum(descriptors, 0, keepdims=True) / len(pooled)
        logits = keras.ops.sum(self.mlp(descriptors), 0)
        return x, ops.GATES[self.spec.gate](logits)[(slice(None), *[None] * self.spec.rank)]

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        x, channel = self.attend(self.accept(x))
        return self.from_channels_last(ops.scale(x, channel, kernels=self.kernels))

    def get_config(self) -> dict[str, Any]:
        return {**self.declared.channel_arguments(), **super().get_config()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.arguments('order')})"


@keras.saving.register_keras_serializable(package="cbam")
class SpatialAttention(FeatureMapLayer):
    """y = Ms(x) * x with Ms = gate( conv_kxk [avg over channels ; max over channels] ), eq. (3).

    Args:
        channels, kernel_size, spatial_bias, spatial_norm, gate, pooling, spatial_descriptor,
            norm_eps, norm_momentum, rank: see `cbam_core.CBAMSpec`; where `channels` is None the
            first input tells.
        data_format: "channels_last", "channels_first" or None for Keras' own setting.
        synchronized: whether a norm takes its statistics over all replicas of a tf.distribute
            strategy, on the TensorFlow backend; on JAX keras.distribution does so by itself.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        **kwargs: name, dtype and the like, see `keras.layers.Layer`.

    Shape:
        x (N, *S, C) -> y (N, *S, C); `gate(x)` is Ms (N, *S, 1).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the layer was built for, or too small for batch statistics.

    Example:
        >>> import keras
        >>> from cbam_keras import SpatialAttention
        >>> attention = SpatialAttention(64, spatial_norm=True)
        >>> tuple(attention.gate(keras.random.normal((2, 7, 7, 64))).shape)
        (2, 7, 7, 1)
    """

    def __init__(
        self,
        channels: int | None = None,
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
        data_format: str | None = None,
        synchronized: bool = False,
        kernels: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            channels,
            data_format,
            kernels,
            kwargs,
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
        self.synchronized = synchronized

    def make_layers(self, spec: CBAMSpec) -> None:
        unknown = (None,) * (spec.rank + 1)
        dtype = self.gate_dtype
        if spec.spatial_descriptor == "conv":
            self.squeeze = Linear(1, use_bias=False, name="squeeze", dtype=dtype)
            self.squeeze.build((*unknown, spec.channels))
        self.conv = CONV[spec.rank](
            1,
            spec.kernel_size,
            # At stride 1 and an odd size k, "same" pads k // 2 on both sides.
            padding="same",
            data_format="channels_last",
            use_bias=spec.spatial_bias,
            name="conv",
            dtype=dtype,
        )
        self.conv.build((*unknown, spatial_maps(spec)))
        if spec.spatial_norm:
            self.norm = BatchNorm(
                spec.norm_eps,
                spec.norm_momentum,
                synchronized=self.synchronized,
                name="norm",
                dtype=dtype,
            )
            self.norm.build((*unknown, 1))

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> SpatialAttention:
        """The spatial gate of `spec`; `options` are those after the spec's."""
        return cls(**spec.spatial_arguments(), **options)

    def descriptor(self, x: Tensor, channel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x, and [avg ; max] over channels, their mean, or a 1x1 convolution: (N, *S, 1 or 2)."""
        if self.spec.spatial_descriptor == "conv":
            return x, self.squeeze(
                ops.scale(ops.at_least_float32(x), channel, kernels=self.kernels)
            )
        x, pooled = ops.pool_channels(x, channel, kernels=self.kernels)
        maps = keras.ops.concatenate(pooled, -1)
        light = self.spec.pooling == "light"
        return x, keras.ops.sum(maps, -1, keepdims=True) / 2 if light else maps

    def gate(self, x: Tensor, channel: Tensor | None = None, training: bool = False) -> Tensor:
        """Ms (N, *S, 1) of x (N, *S, C), or of Mc * x, in at least float32."""
        x, channel = self.accept(x, training), self.to_channels_last(channel)
        return self.from_channels_last(self.attend(x, channel, training)[1])

    def attend(
        self, x: Tensor, channel: Tensor | None = None, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """x (N, *S, C), handed on as the primitives do, and Ms."""
        x, descriptor = self.descriptor(x, channel)
        logits = self.conv(descriptor)
        if self.spec.spatial_norm:
            logits = self.norm(logits, training=training)
        return x, ops.GATES[self.spec.gate](logits)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        x, spatial = self.attend(self.accept(x, training), training=training)
        return self.from_channels_last(ops.scale(x, spatial=spatial, kernels=self.kernels))

    def get_config(self) -> dict[str, Any]:
        own = {"synchronized": self.synchronized}
        return {**self.declared.spatial_arguments(), **own, **super().get_config()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.arguments('order')})"


@keras.saving.register_keras_serializable(package="cbam")
class CBAM(FeatureMapLayer):
    """y = Ms(x') * x' with x' = Mc(x) * x, eq. (1); other orders as `order` says.

    Args:
        channels, reduction, ...: see `cbam_core.CBAMSpec`; the defaults are the paper's equations.
            Where `channels` is None the first input tells.
        data_format: "channels_last", "channels_first" or None for Keras' own setting.
        synchronized: whether a norm takes its statistics over all replicas of a tf.distribute
            strategy, on the TensorFlow backend; on JAX keras.distribution does so by itself.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        **kwargs: name, dtype and the like, see `keras.layers.Layer`.

    Shape:
        x (N, *S, C) -> y (N, *S, C).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the layer was built for, or too small for batch statistics.

    Example:
        >>> import keras
        >>> from cbam_core import CBAMSpec
        >>> from cbam_keras import CBAM
        >>> tuple(CBAM(reduction=8)(keras.random.normal((2, 7, 7, 64))).shape)
        (2, 7, 7, 64)
        >>> CBAM.from_spec(CBAMSpec.preset("luuuyi", 64, kernel_size=3))
        CBAM(64, kernel_size=3)
    """

    def __init__(
        self,
        channels: int | None = None,
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
        data_format: str | None = None,
        synchronized: bool = False,
        kernels: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            channels,
            data_format,
            kernels,
            kwargs,
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
        self.synchronized = synchronized

    def make_layers(self, spec: CBAMSpec) -> None:
        # What reaches the gates has the right dtype already, and they are not to change it.
        options = {
            "data_format": "channels_last", "dtype": self.gate_dtype, "autocast": False,
            "kernels": self.kernels,
        }  # fmt: skip
        if spec.has_channel_gate:
            self.channel = ChannelAttention.from_spec(spec, name="channel", **options)
            self.channel.build()
        if spec.has_spatial_gate:
            options["synchronized"] = self.synchronized
            self.spatial = SpatialAttention.from_spec(spec, name="spatial", **options)
            self.spatial.build()

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> CBAM:
        """The block of `spec`; `options` are those after the spec's."""
        return cls(**spec.to_dict(), **options)

    def gates(
        self, x: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
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

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        x, channel, spatial = self.gates(self.accept(x, training), training)
        y = ops.scale(x, channel, spatial, residual=self.spec.residual, kernels=self.kernels)
        return self.from_channels_last(y)

    def get_config(self) -> dict[str, Any]:
        own = {"synchronized": self.synchronized}
        return {**self.declared.to_dict(), **own, **super().get_config()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.arguments()})"


@keras.saving.register_keras_serializable(package="cbam")
class SqueezeExcitation(ChannelAttention):
    """x' = gate( MLP(avg over space) ) * x, the special case of a channel gate with one pool.

    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507.

    Args:
        channels, reduction, hidden, mlp_bias, gate, rank: see `cbam_core.CBAMSpec`; where
            `channels` is None the first input tells.
        data_format: "channels_last", "channels_first" or None for Keras' own setting.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        **kwargs: name, dtype and the like, see `keras.layers.Layer`.

    Shape:
        x (N, *S, C) -> x' (N, *S, C); `gate(x)` is (N, 1.., C).

    Example:
        >>> import keras
        >>> from cbam_keras import SqueezeExcitation
        >>> tuple(SqueezeExcitation(64, mlp_bias=True)(keras.random.normal((2, 7, 7, 64))).shape)
        (2, 7, 7, 64)
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        reduction: int = 16,
        hidden: int | None = None,
        mlp_bias: bool = False,
        gate: str = "sigmoid",
        rank: int = 2,
        data_format: str | None = None,
        kernels: bool = True,
        **kwargs: Any,
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
            kernels=kernels,
            **kwargs,
        )

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> SqueezeExcitation:
        """The block of a squeeze-and-excitation `spec`; options as for a channel gate."""
        return cls(**spec.squeeze_excitation_arguments(), **options)

    def get_config(self) -> dict[str, Any]:
        arguments = self.declared.squeeze_excitation_arguments()
        return {**arguments, **FeatureMapLayer.get_config(self)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.arguments('order', 'channel_pools')})"
