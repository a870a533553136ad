"""CBAM, its two gates, and squeeze-and-excitation, for Flax nnx.

    channel   Mc = gate( MLP(avg over space) + MLP(max over space) ),  MLP(v) = W1 relu(W0 v)
    spatial   Ms = gate( conv_kxk [avg over channels ; max over channels] )
    x' = Mc * x        y = Ms(x') * x'

Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, https://arxiv.org/abs/1807.06521.
Feature maps are (N, *S, C) with one to three spatial axes S, in float16, bfloat16, float32 or
float64; the gates compute in at least float32, and the output has the dtype of the input, or
`dtype` where it is given, to which the input is cast. As everywhere in nnx, a new module is in
training mode; `module.eval()` and `module.train()` switch it.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import Array

from cbam_core import CBAMSpec, check_input, spatial_maps
from cbam_flax import layers, ops


class ChannelAttention(nnx.Module):
    """x' = Mc(x) * x with Mc = gate( sum over the pools of MLP(pool over space) ), eq. (2).

    Args:
        channels, reduction, hidden, mlp_bias, channel_pools, gate, pooling, rank: see
            `cbam_core.CBAMSpec`.
        dtype: of the output; None for that of the input.
        param_dtype: of the parameters.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        rngs: for their initial values.

    Shape:
        x (N, *S, C) -> x' (N, *S, C); `gate(x)` is Mc (N, 1.., C).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from cbam_flax import ChannelAttention
        >>> attention = ChannelAttention(64, reduction=8, rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 7, 7, 64))).shape
        (2, 7, 7, 64)
        >>> attention.gate(jnp.ones((2, 7, 7, 64))).shape
        (2, 1, 1, 64)
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
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        kernels: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
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
        self.dtype, self.kernels = dtype, kernels
        options: dict[str, Any] = {"use_bias": mlp_bias, "param_dtype": param_dtype, "rngs": rngs}
        self.reduce = nnx.Linear(spec.channels, spec.hidden_channels, **options)
        self.expand = nnx.Linear(spec.hidden_channels, spec.channels, **options)

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> ChannelAttention:
        """The channel gate of `spec`; `options` are dtype, param_dtype, kernels, rngs."""
        return cls(**spec.channel_arguments(), **options)

    def mlp(self, v: Array) -> Array:
        """W1 relu(W0 v): (..., C) -> (..., C)."""
        return self.expand(ops.relu(self.reduce(v)))

    def gate(self, x: Array, spatial: Array | None = None) -> Array:
        """Mc (N, 1.., C) of x (N, *S, C), or of Ms * x, in at least float32."""
        return self.attend(x, spatial)[1]

    def attend(self, x: Array, spatial: Array | None = None) -> tuple[Array, Array]:
        """x, handed on as the primitives do, and Mc."""
        check_input(self.spec, x.shape, x.dtype, channel_axis=-1)
        x, pooled = ops.pool_space(x, self.spec.channel_pools, spatial, kernels=self.kernels)
        descriptors = jnp.stack(pooled)
        if self.spec.pooling == "light":
            descriptors = descriptors.mean(0, keepdims=True)
        logits = self.mlp(descriptors).sum(0)
        space = range(1, self.spec.rank + 1)
        return x, jnp.expand_dims(ops.GATES[self.spec.gate](logits), space)

    def __call__(self, x: Array) -> Array:
        x, channel = self.attend(jnp.asarray(x, self.dtype))
        return ops.scale(x, channel, kernels=self.kernels)

    def __repr__(self) -> str:
        return _shown(self, "order")


class SpatialAttention(nnx.Module):
    """y = Ms(x) * x with Ms = gate( conv_kxk [avg over channels ; max over channels] ), eq. (3).

    Args:
        channels, kernel_size, spatial_bias, spatial_norm, gate, pooling, spatial_descriptor,
            norm_eps, norm_momentum, rank: see `cbam_core.CBAMSpec`.
        dtype: of the output; None for that of the input.
        param_dtype: of the parameters; a norm's stay at least float32.
        axis_name: the mapped axis (of jax.pmap, say) over which a norm takes its statistics.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        rngs: for the parameters' initial values.

    Shape:
        x (N, *S, C) -> y (N, *S, C); `gate(x)` is Ms (N, *S, 1).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for, or too small for batch statistics.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from cbam_flax import SpatialAttention
        >>> attention = SpatialAttention(64, spatial_norm=True, rngs=nnx.Rngs(0))
        >>> attention.gate(jnp.ones((2, 7, 7, 64))).shape
        (2, 7, 7, 1)
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
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        axis_name: str | None = None,
        kernels: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
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
        self.dtype, self.kernels = dtype, kernels
        options: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        if spatial_descriptor == "conv":
            self.squeeze = nnx.Linear(spec.channels, 1, use_bias=False, **options)
        self.conv = nnx.Conv(
            spatial_maps(spec),
            1,
            (spec.kernel_size,) * spec.rank,
            padding=spec.kernel_size // 2,
            use_bias=spatial_bias,
            **options,
        )
        if spatial_norm:
            self.norm = layers.BatchNorm(
                1,
                spec.norm_eps,
                spec.norm_momentum,
                param_dtype=param_dtype,
                axis_name=axis_name,
            )

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> SpatialAttention:
        """The spatial gate of `spec`; `options` are dtype, param_dtype, axis_name and so on."""
        return cls(**spec.spatial_arguments(), **options)

    def descriptor(self, x: Array, channel: Array | None = None) -> tuple[Array, Array]:
        """x, and [avg ; max] over channels, their mean, or a 1x1 convolution: (N, *S, 1 or 2)."""
        if self.spec.spatial_descriptor == "conv":
            wide = ops.at_least_float32(x)
            return x, self.squeeze(ops.scale(wide, channel, kernels=self.kernels))
        x, pooled = ops.pool_channels(x, channel, kernels=self.kernels)
        maps = jnp.concatenate(pooled, -1)
        return x, maps.mean(-1, keepdims=True) if self.spec.pooling == "light" else maps

    def gate(self, x: Array, channel: Array | None = None) -> Array:
        """Ms (N, *S, 1) of x (N, *S, C), or of Mc * x, in at least float32."""
        return self.attend(x, channel)[1]

    def attend(self, x: Array, channel: Array | None = None) -> tuple[Array, Array]:
        """x, handed on as the primitives do, and Ms."""
        # A batch that other devices share may be a single position on this one.
        batch_statistics = (
            self.spec.spatial_norm
            and not self.norm.use_running_average
            and self.norm.axis_name is None
        )
        check_input(self.spec, x.shape, x.dtype, channel_axis=-1, batch_statistics=batch_statistics)
        x, descriptor = self.descriptor(x, channel)
        logits = self.conv(descriptor)
        if self.spec.spatial_norm:
            logits = self.norm(logits)
        return x, ops.GATES[self.spec.gate](logits)

    def __call__(self, x: Array) -> Array:
        x, spatial = self.attend(jnp.asarray(x, self.dtype))
        return ops.scale(x, spatial=spatial, kernels=self.kernels)

    def __repr__(self) -> str:
        return _shown(self, "order")


class CBAM(nnx.Module):
    """y = Ms(x') * x' with x' = Mc(x) * x, eq. (1); other orders as `order` says.

    Args:
        channels, reduction, ...: see `cbam_core.CBAMSpec`; the defaults are the paper's equations.
        dtype: of the output; None for that of the input.
        param_dtype: of the parameters; a norm's stay at least float32.
        axis_name: the mapped axis (of jax.pmap, say) over which a norm takes its statistics.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        rngs: for the parameters' initial values.

    Shape:
        x (N, *S, C) -> y (N, *S, C).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for, or too small for batch statistics.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from cbam_core import CBAMSpec
        >>> from cbam_flax import CBAM
        >>> CBAM(64, reduction=8, rngs=nnx.Rngs(0))(jnp.ones((2, 7, 7, 64))).shape
        (2, 7, 7, 64)
        >>> CBAM.from_spec(CBAMSpec.preset("luuuyi", 64, kernel_size=3), rngs=nnx.Rngs(0))
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
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        axis_name: str | None = None,
        kernels: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
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
        self.dtype, self.kernels = dtype, kernels
        # The gates get no dtype: x has been cast before they see it.
        options: dict[str, Any] = {"param_dtype": param_dtype, "kernels": kernels, "rngs": rngs}
        if spec.has_channel_gate:
            self.channel = ChannelAttention.from_spec(spec, **options)
        if spec.has_spatial_gate:
            self.spatial = SpatialAttention.from_spec(spec, axis_name=axis_name, **options)

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> CBAM:
        """The block of `spec`; `options` are dtype, param_dtype, axis_name and so on."""
        return cls(**spec.to_dict(), **options)

    def gates(self, x: Array) -> tuple[Array, Array | None, Array | None]:
        """x handed on, Mc and Ms in the order of the spec; None for a gate that it lacks."""
        channel = spatial = None
        match self.spec.order:
            case "channel_spatial":
                x, channel = self.channel.attend(x)
                x, spatial = self.spatial.attend(x, channel)
            case "spatial_channel":
                x, spatial = self.spatial.attend(x)
                x, channel = self.channel.attend(x, spatial)
            case "parallel":
                x, channel = self.channel.attend(x)
                x, spatial = self.spatial.attend(x)
            case "channel":
                x, channel = self.channel.attend(x)
            case _:
                x, spatial = self.spatial.attend(x)
        return x, channel, spatial

    def __call__(self, x: Array) -> Array:
        x, channel, spatial = self.gates(jnp.asarray(x, self.dtype))
        residual = self.spec.residual
        return ops.scale(x, channel, spatial, residual=residual, kernels=self.kernels)

    def __repr__(self) -> str:
        return _shown(self)


class SqueezeExcitation(ChannelAttention):
    """x' = gate( MLP(avg over space) ) * x, the special case of a channel gate with one pool.

    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507.

    Args:
        channels, reduction, hidden, mlp_bias, gate, rank: see `cbam_core.CBAMSpec`.
        dtype: of the output; None for that of the input.
        param_dtype: of the parameters.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        rngs: for their initial values.

    Shape:
        x (N, *S, C) -> x' (N, *S, C); `gate(x)` is (N, 1.., C).

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from cbam_flax import SqueezeExcitation
        >>> SqueezeExcitation(64, mlp_bias=True, rngs=nnx.Rngs(0))(jnp.ones((2, 7, 7, 64))).shape
        (2, 7, 7, 64)
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
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        kernels: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            channels,
            reduction=reduction,
            hidden=hidden,
            mlp_bias=mlp_bias,
            channel_pools=("avg",),
            gate=gate,
            rank=rank,
            dtype=dtype,
            param_dtype=param_dtype,
            kernels=kernels,
            rngs=rngs,
        )

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> SqueezeExcitation:
        """The block of a squeeze-and-excitation `spec`; options: dtype, param_dtype and so on."""
        return cls(**spec.squeeze_excitation_arguments(), **options)

    def __repr__(self) -> str:
        return _shown(self, "order", "channel_pools")


def _shown(module: Any, *fixed: str) -> str:
    """The call that builds `module`, without the `fixed` fields of its spec."""
    kernels = "" if module.kernels else ", kernels=False"
    return f"{type(module).__name__}({module.spec.arguments(*fixed)}{kernels})"
