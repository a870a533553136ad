"""CBAM, its two gates, and squeeze-and-excitation, for PyTorch.

    channel   Mc = gate( MLP(avg over space) + MLP(max over space) ),  MLP(v) = W1 relu(W0 v)
    spatial   Ms = gate( conv_kxk [avg over channels ; max over channels] )
    x' = Mc * x        y = Ms(x') * x'

Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, https://arxiv.org/abs/1807.06521.
Feature maps are (N, C, *S) with one to three spatial axes S, in float16, bfloat16, float32 or
float64; the gates compute in at least float32, and the output has the dtype of the input.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core import CBAMSpec, check_input, spatial_maps
from cbam_torch import ops
from cbam_torch.layers import CONV, BatchNorm, Linear


class ChannelAttention(nn.Module):
    """x' = Mc(x) * x with Mc = gate( sum over the pools of MLP(pool over space) ), eq. (2).

    Args:
        channels, reduction, hidden, mlp_bias, channel_pools, gate, pooling, rank: see
            `cbam_core.CBAMSpec`.
        device, dtype: of the parameters.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, C, *S) -> x' (N, C, *S); `gate(x)` is Mc (N, C, 1..).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for.

    Example:
        >>> import torch
        >>> from cbam_torch import ChannelAttention
        >>> attention = ChannelAttention(64, reduction=8)
        >>> attention(torch.randn(2, 64, 7, 7)).shape
        torch.Size([2, 64, 7, 7])
        >>> attention.gate(torch.randn(2, 64, 7, 7)).shape
        torch.Size([2, 64, 1, 1])
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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        kernels: bool = True,
    ) -> None:
        super().__init__()
        self.kernels = kernels
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
        options: dict[str, Any] = {"bias": mlp_bias, "device": device, "dtype": dtype}
        self.reduce = Linear(spec.channels, spec.hidden_channels, **options)
        self.expand = Linear(spec.hidden_channels, spec.channels, **options)

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> ChannelAttention:
        """The channel gate of `spec`; `options` are device, dtype and kernels."""
        return cls(**spec.channel_arguments(), **options)

    def mlp(self, v: Tensor) -> Tensor:
        """W1 relu(W0 v): (..., C) -> (..., C)."""
        return self.expand(F.relu(self.reduce(v)))

    def gate(self, x: Tensor, spatial: Tensor | None = None) -> Tensor:
        """Mc (N, C, 1..) of x (N, C, *S), or of Ms * x, in at least float32."""
        return self.attend(x, spatial)[1]

    def attend(self, x: Tensor, spatial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x, handed on as the primitives do, and Mc."""
        check_input(self.spec, x.shape, x.dtype, channel_axis=1)
        x, pooled = ops.pool_space(x, self.spec.channel_pools, spatial, kernels=self.kernels)
        descriptors = torch.stack(pooled)
        if self.spec.pooling == "light":
            descriptors = descriptors.mean(0, keepdim=True)
        logits = self.mlp(descriptors).sum(0)
        return x, ops.GATES[self.spec.gate](logits)[(..., *[None] * self.spec.rank)]

    def forward(self, x: Tensor) -> Tensor:
        x, channel = self.attend(x)
        return ops.scale(x, channel, kernels=self.kernels)

    def __repr__(self) -> str:
        return _repr(self, "order")


class SpatialAttention(nn.Module):
    """y = Ms(x) * x with Ms = gate( conv_kxk [avg over channels ; max over channels] ), eq. (3).

    Args:
        channels, kernel_size, spatial_bias, spatial_norm, gate, pooling, spatial_descriptor,
            norm_eps, norm_momentum, rank: see `cbam_core.CBAMSpec`.
        device, dtype: of the parameters; a norm's stay at least float32.
        synchronized: whether a norm takes its statistics over all processes of torch.distributed.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, C, *S) -> y (N, C, *S); `gate(x)` is Ms (N, 1, *S).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for, or too small for batch statistics.

    Example:
        >>> import torch
        >>> from cbam_torch import SpatialAttention
        >>> attention = SpatialAttention(64, spatial_norm=True)
        >>> attention.gate(torch.randn(2, 64, 7, 7)).shape
        torch.Size([2, 1, 7, 7])
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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        synchronized: bool = False,
        kernels: bool = True,
    ) -> None:
        super().__init__()
        self.kernels = kernels
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
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        conv = CONV[spec.rank]
        if spec.spatial_descriptor == "conv":
            self.squeeze = conv(spec.channels, 1, 1, bias=False, **options)
        size, bias = spec.kernel_size, spec.spatial_bias
        self.conv = conv(spatial_maps(spec), 1, size, padding=size // 2, bias=bias, **options)
        self.norm: nn.Module = nn.Identity()
        if spec.spatial_norm:
            self.norm = BatchNorm(
                1, spec.norm_eps, spec.norm_momentum, synchronized=synchronized, **options
            )

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> SpatialAttention:
        """The spatial gate of `spec`; `options` are device, dtype, synchronized, kernels."""
        return cls(**spec.spatial_arguments(), **options)

    def descriptor(self, x: Tensor, channel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x, and [avg ; max] over channels, their mean, or a 1x1 convolution: (N, 1 or 2, *S)."""
        if self.spec.spatial_descriptor == "conv":
            wide = ops.at_least_float32(x)
            return x, self.squeeze(ops.scale(wide, channel, kernels=self.kernels))
        x, pooled = ops.pool_channels(x, channel, kernels=self.kernels)
        maps = torch.cat(pooled, dim=1)
        return x, maps.mean(1, keepdim=True) if self.spec.pooling == "light" else maps

    def gate(self, x: Tensor, channel: Tensor | None = None) -> Tensor:
        """Ms (N, 1, *S) of x (N, C, *S), or of Mc * x, in at least float32."""
        return self.attend(x, channel)[1]

    def attend(self, x: Tensor, channel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x, handed on as the primitives do, and Ms."""
        # A norm may be frozen alone, and one that is synchronised counts other devices' positions.
        batch_statistics = (
            isinstance(self.norm, BatchNorm) and self.norm.training and not self.norm.synchronized
        )
        check_input(self.spec, x.shape, x.dtype, channel_axis=1, batch_statistics=batch_statistics)
        x, descriptor = self.descriptor(x, channel)
        return x, ops.GATES[self.spec.gate](self.norm(self.conv(descriptor)))

    def forward(self, x: Tensor) -> Tensor:
        x, spatial = self.attend(x)
        return ops.scale(x, spatial=spatial, kernels=self.kernels)

    def __repr__(self) -> str:
        return _repr(self, "order")


class CBAM(nn.Module):
    """y = Ms(x') * x' with x' = Mc(x) * x, eq. (1); other orders as `order` says.

    Args:
        channels, reduction, ...: see `cbam_core.CBAMSpec`; the defaults are the paper's equations.
        device, dtype: of the parameters; a norm's stay at least float32.
        synchronized: whether a norm takes its statistics over all processes of torch.distributed.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, C, *S) -> y (N, C, *S).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; an x of another rank, width or
            dtype than the module was built for, or too small for batch statistics.

    Example:
        >>> import torch
        >>> from cbam_core import CBAMSpec
        >>> from cbam_torch import CBAM
        >>> CBAM(64, reduction=8)(torch.randn(2, 64, 7, 7)).shape
        torch.Size([2, 64, 7, 7])
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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        synchronized: bool = False,
        kernels: bool = True,
    ) -> None:
        super().__init__()
        self.kernels = kernels
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
        options: dict[str, Any] = {"device": device, "dtype": dtype, "kernels": kernels}
        if spec.has_channel_gate:
            self.channel = ChannelAttention.from_spec(spec, **options)
        if spec.has_spatial_gate:
            self.spatial = SpatialAttention.from_spec(spec, synchronized=synchronized, **options)

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> CBAM:
        """The block of `spec`; `options` are device, dtype, synchronized, kernels."""
        return cls(**spec.to_dict(), **options)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
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

    def forward(self, x: Tensor) -> Tensor:
        x, channel, spatial = self.gates(x)
        residual = self.spec.residual
        return ops.scale(x, channel, spatial, residual=residual, kernels=self.kernels)

    def __repr__(self) -> str:
        return _repr(self)


class SqueezeExcitation(ChannelAttention):
    """x' = gate( MLP(avg over space) ) * x, the special case of a channel gate with one pool.

    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507.

    Args:
        channels, reduction, hidden, mlp_bias, gate, rank: see `cbam_core.CBAMSpec`.
        device, dtype: of the parameters.
        kernels: whether the primitives may have gradients and kernels of their own; the plain
            composition otherwise.

    Shape:
        x (N, C, *S) -> x' (N, C, *S); `gate(x)` is (N, C, 1..).

    Example:
        >>> import torch
        >>> from cbam_torch import SqueezeExcitation
        >>> SqueezeExcitation(64, mlp_bias=True)(torch.randn(2, 64, 7, 7)).shape
        torch.Size([2, 64, 7, 7])
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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        kernels: bool = True,
    ) -> None:
        super().__init__(
            channels,
            reduction=reduction,
            hidden=hidden,
            mlp_bias=mlp_bias,
            channel_pools=("avg",),
            gate=gate,
            rank=rank,
            device=device,
            dtype=dtype,
            kernels=kernels,
        )

    @classmethod
    def from_spec(cls, spec: CBAMSpec, **options: Any) -> SqueezeExcitation:
        """The block of a squeeze-and-excitation `spec`; options: device, dtype, kernels."""
        return cls(**spec.squeeze_excitation_arguments(), **options)

    def __repr__(self) -> str:
        return _repr(self, "order", "channel_pools")


def _repr(module: ChannelAttention | SpatialAttention | CBAM, *fixed: str) -> str:
    kernels = "" if module.kernels else ", kernels=False"
    return f"{type(module).__name__}({module.spec.arguments(*fixed)}{kernels})"
