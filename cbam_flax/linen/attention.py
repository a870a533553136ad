"""CBAM, its two gates, and squeeze-and-excitation, for Flax linen.

    channel   Mc = gate( MLP(avg over space) + MLP(max over space) ),  MLP(v) = W1 relu(W0 v)
    spatial   Ms = gate( conv_kxk [avg over channels ; max over channels] )
    x' = Mc * x        y = Ms(x') * x'

Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, https://arxiv.org/abs/1807.06521.
Feature maps are (N, *S, C) with one to three spatial axes S, in float16, bfloat16, float32 or
float64; the gates compute in at least float32, and the output has the dtype of the input, or
`dtype` where it is given, to which the input is cast. As nn.BatchNorm does, a module with a norm
takes `use_running_average` as a field or at the call, and keeps its statistics in "batch_stats".

linen's arguments are fields, so `module.gate` is the name of the function, and the gate itself is
`gate_of(x)`: `module.apply(variables, x, method="gate_of")`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from cbam_core import CBAMSpec, check_input
from cbam_flax import ops
from cbam_flax.linen import layers


class ChannelAttention(nn.Module):
    """x' = Mc(x) * x with Mc = gate( sum over the pools of MLP(pool over space) ), eq. (2).

    Args:
        channels, reduction, hidden, mlp_bias, channel_pools, gate, pooling, rank: see
            `cbam_core.CBAMSpec`.
        dtype: of the output; None for that of the input.
        param_dtype: of the parameters.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, *S, C) -> x' (N, *S, C); `gate_of(x)` is Mc (N, 1.., C).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cbam_flax.linen import ChannelAttention
        >>> attention, x = ChannelAttention(64, reduction=8), jnp.ones((2, 7, 7, 64))
        >>> variables = attention.init(jax.random.key(0), x)
        >>> attention.apply(variables, x).shape
        (2, 7, 7, 64)
        >>> attention.apply(variables, x, method="gate_of").shape
        (2, 1, 1, 64)
    """

    channels: int
    _: KW_ONLY
    reduction: int = 16
    hidden: int | None = None
    mlp_bias: bool = False
    channel_pools: tuple[str, ...] = ("avg", "max")
    gate: str = "sigmoid"
    pooling: str = "separate"
    rank: int = 2
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    kernels: bool = True

    def __post_init__(self) -> None:
        # A list would leave the module without a hash.
        self.channel_pools = self.spec.channel_pools
        super().__post_init__()

    @property
    def spec(self) -> CBAMSpec:
        """What the module computes; a TypeError or ValueError if no CBAM can."""
        return CBAMSpec(
            self.channels,
            reduction=self.reduction,
            hidden=self.hidden,
            mlp_bias=self.mlp_bias,
            channel_pools=self.channel_pools,
            gate=self.gate,
            order="channel",
            pooling=self.pooling,
            rank=self.rank,
        )

    def setup(self) -> None:
        options: dict[str, Any] = {"use_bias": self.mlp_bias, "param_dtype": self.param_dtype}
        self.reduce = nn.Dense(self.spec.hidden_channels, **options)
        self.expand = nn.Dense(self.spec.channels, **options)

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> ChannelAttention:
        """The channel gate of `spec`; `options` are dtype, param_dtype, kernels and name."""
        return cls(**spec.channel_arguments(), **options)

    def mlp(self, v: Array) -> Array:
        """W1 relu(W0 v): (..., C) -> (..., C)."""
        return self.expand(ops.relu(self.reduce(v)))

    def gate_of(self, x: Array, spatial: Array | None = None) -> Array:
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


class SpatialAttention(nn.Module):
    """y = Ms(x) * x with Ms = gate( conv_kxk [avg over channels ; max over channels] ), eq. (3).

    Args:
        channels, kernel_size, spatial_bias, spatial_norm, gate, pooling, spatial_descriptor,
            norm_eps, norm_momentum, rank: see `cbam_core.CBAMSpec`.
        dtype: of the output; None for that of the input.
        param_dtype: of the parameters; a norm's stay at least float32.
        axis_name: the mapped axis (of jax.pmap, say) over which a norm takes its statistics.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        use_running_average: whether a norm uses its running statistics and not those of the
            batch; here or at the call.

    Shape:
        x (N, *S, C) -> y (N, *S, C); `gate_of(x)` is Ms (N, *S, 1).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for, or too small for batch statistics.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cbam_flax.linen import SpatialAttention
        >>> attention, x = SpatialAttention(64, spatial_norm=True), jnp.ones((2, 7, 7, 64))
        >>> variables = attention.init(jax.random.key(0), x)
        >>> attention.apply(variables, x, use_running_average=True, method="gate_of").shape
        (2, 7, 7, 1)
    """

    channels: int
    _: KW_ONLY
    kernel_size: int = 7
    spatial_bias: bool = False
    spatial_norm: bool = False
    gate: str = "sigmoid"
    pooling: str = "separate"
    spatial_descriptor: str = "pool"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    rank: int = 2
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None
    kernels: bool = True
    use_running_average: bool | None = None

    def __post_init__(self) -> None:
        _ = self.spec  # which raises
        super().__post_init__()

    @property
    def spec(self) -> CBAMSpec:
        """What the module computes; a TypeError or ValueError if no CBAM can."""
        return CBAMSpec(
            self.channels,
            kernel_size=self.kernel_size,
            spatial_bias=self.spatial_bias,
            spatial_norm=self.spatial_norm,
            gate=self.gate,
            order="spatial",
            pooling=self.pooling,
            spatial_descriptor=self.spatial_descriptor,
            norm_eps=self.norm_eps,
            norm_momentum=self.norm_momentum,
            rank=self.rank,
        )

    def setup(self) -> None:
        spec = self.spec
        options: dict[str, Any] = {"param_dtype": self.param_dtype}
        if spec.spatial_descriptor == "conv":
            self.squeeze = nn.Dense(1, use_bias=False, **options)
        self.conv = nn.Conv(
            1,
            (spec.kernel_size,) * spec.rank,
            padding=spec.kernel_size // 2,
            use_bias=spec.spatial_bias,
            **options,
        )
        if spec.spatial_norm:
            self.norm = layers.BatchNorm(
                spec.norm_eps, spec.norm_momentum, axis_name=self.axis_name, **options
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

    def gate_of(
        self, x: Array, channel: Array | None = None, use_running_average: bool | None = None
    ) -> Array:
        """Ms (N, *S, 1) of x (N, *S, C), or of Mc * x, in at least float32."""
        return self.attend(x, channel, use_running_average)[1]

    def attend(
        self, x: Array, channel: Array | None = None, use_running_average: bool | None = None
    ) -> tuple[Array, Array]:
        """x, handed on as the primitives do, and Ms."""
        # As in nn.BatchNorm, `init` leaves the statistics as they start.
        batch_statistics = self.spec.spatial_norm and not (
            self.is_initializing()
            or nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        )
        # A batch that other devices share may be a single position on this one.
        alone = batch_statistics and self.axis_name is None
        check_input(self.spec, x.shape, x.dtype, channel_axis=-1, batch_statistics=alone)
        x, descriptor = self.descriptor(x, channel)
        logits = self.conv(descriptor)
        if self.spec.spatial_norm:
            logits = self.norm(logits, use_running_average=not batch_statistics)
        return x, ops.GATES[self.spec.gate](logits)

    def __call__(self, x: Array, use_running_average: bool | None = None) -> Array:
        x = jnp.asarray(x, self.dtype)
        x, spatial = self.attend(x, use_running_average=use_running_average)
        return ops.scale(x, spatial=spatial, kernels=self.kernels)

    def __repr__(self) -> str:
        return _shown(self, "order")


class CBAM(nn.Module):
    """y = Ms(x') * x' with x' = Mc(x) * x, eq. (1); other orders as `order` says.

    Args:
        channels, reduction, ...: see `cbam_core.CBAMSpec`; the defaults are the paper's equations.
        dtype: of the output; None for that of the input.
        param_dtype: of the parameters; a norm's stay at least float32.
        axis_name: the mapped axis (of jax.pmap, say) over which a norm takes its statistics.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.
        use_running_average: whether a norm uses its running statistics and not those of the
            batch; here or at the call.

    Shape:
        x (N, *S, C) -> y (N, *S, C).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for, or too small for batch statistics.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cbam_core import CBAMSpec
        >>> from cbam_flax.linen import CBAM
        >>> block = CBAM.from_spec(CBAMSpec.preset("official", 64, kernel_size=3))
        >>> x = jnp.ones((2, 7, 7, 64))
        >>> variables = block.init(jax.random.key(0), x)
        >>> y, updated = block.apply(
        ...     variables, x, use_running_average=False, mutable=["batch_stats"]
        ... )
        >>> y.shape
        (2, 7, 7, 64)
    """

    channels: int
    _: KW_ONLY
    reduction: int = 16
    hidden: int | None = None
    mlp_bias: bool = False
    channel_pools: tuple[str, ...] = ("avg", "max")
    kernel_size: int = 7
    spatial_bias: bool = False
    spatial_norm: bool = False
    gate: str = "sigmoid"
    order: str = "channel_spatial"
    pooling: str = "separate"
    spatial_descriptor: str = "pool"
    residual: bool = False
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    rank: int = 2
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None
    kernels: bool = True
    use_running_average: bool | None = None

    def __post_init__(self) -> None:
        # A list would leave the module without a hash.
        self.channel_pools = self.spec.channel_pools
        super().__post_init__()

    @property
    def spec(self) -> CBAMSpec:
        """What the module computes; a TypeError or ValueError if no CBAM can."""
        fields = (field.name for field in dataclasses.fields(CBAMSpec))
        return CBAMSpec(**{field: getattr(self, field) for field in fields})

    def setup(self) -> None:
        spec = self.spec
        # The gates get no dtype: x has been cast before they see it.
        options: dict[str, Any] = {"param_dtype": self.param_dtype, "kernels": self.kernels}
        if spec.has_channel_gate:
            self.channel = ChannelAttention.from_spec(spec, **options)
        if spec.has_spatial_gate:
            self.spatial = SpatialAttention.from_spec(
                spec,
                axis_name=self.axis_name,
                use_running_average=self.use_running_average,
                **options,
            )

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> CBAM:
        """The block of `spec`; `options` are dtype, param_dtype, axis_name and so on."""
        return cls(**spec.to_dict(), **options)

    def gates(
        self, x: Array, use_running_average: bool | None = None
    ) -> tuple[Array, Array | None, Array | None]:
        """x handed on, Mc and Ms in the order of the spec; None for a gate that it lacks."""
        channel = spatial = None
        match self.spec.order:
            case "channel_spatial":
                x, channel = self.channel.attend(x)
                x, spatial = self.spatial.attend(x, channel, use_running_average)
            case "spatial_channel":
                x, spatial = self.spatial.attend(x, None, use_running_average)
                x, channel = self.channel.attend(x, spatial)
            case "parallel":
                x, channel = self.channel.attend(x)
                x, spatial = self.spatial.attend(x, None, use_running_average)
            case "channel":
                x, channel = self.channel.attend(x)
            case _:
                x, spatial = self.spatial.attend(x, None, use_running_average)
        return x, channel, spatial

    def __call__(self, x: Array, use_running_average: bool | None = None) -> Array:
        x, channel, spatial = self.gates(jnp.asarray(x, self.dtype), use_running_average)
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

    Shape:
        x (N, *S, C) -> x' (N, *S, C); `gate_of(x)` is (N, 1.., C).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cbam_flax.linen import SqueezeExcitation
        >>> block, x = SqueezeExcitation(64, mlp_bias=True), jnp.ones((2, 7, 7, 64))
        >>> block.apply(block.init(jax.random.key(0), x), x).shape
        (2, 7, 7, 64)
    """

    # Fixed, so no arguments.
    channel_pools: tuple[str, ...] = dataclasses.field(default=("avg",), init=False)
    pooling: str = dataclasses.field(default="separate", init=False)

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
