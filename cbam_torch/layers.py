"""Linear, convolution and batch norm in the dtype of their input, whatever that of their weights.

The gates compute in at least float32 (see `ops.at_least_float32`), also where the weights are
half-precision numbers or a surrounding autocast would round to them.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """y = x W^T + b, in the dtype of x (..., in) -> (..., out)."""

    def forward(self, x: Tensor) -> Tensor:
        with _without_autocast(x):
            return F.linear(x, self.weight.to(x.dtype), _cast(self.bias, x))


class Conv1d(nn.Conv1d):
    """A convolution in the dtype of x (N, in, L) -> (N, out, L)."""

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x)


class Conv2d(nn.Conv2d):
    """A convolution in the dtype of x (N, in, H, W) -> (N, out, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x)


class Conv3d(nn.Conv3d):
    """A convolution in the dtype of x (N, in, D, H, W) -> (N, out, D, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x)


CONV = {1: Conv1d, 2: Conv2d, 3: Conv3d}


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over (N, 1, *S) of any rank, whose weights and statistics stay at least float32.

    Training normalises with the biased variance and keeps the unbiased one, as torch does.
    `nn.SyncBatchNorm.convert_sync_batchnorm` converts it.
    """

    def __init__(self, channels: int, eps: float, momentum: float, **options: Any) -> None:
        super().__init__(channels, eps, momentum, **options)
        self._apply(lambda tensor: tensor)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank is fine, as for SyncBatchNorm."""

    def _apply(self, fn: Any, recurse: bool = True) -> BatchNorm:
        """`module.half()` moves a norm but leaves it in float32: statistics need the digits."""

        def at_least_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_half = moved.is_floating_point() and moved.dtype.itemsize < 4
            return tensor.to(moved.device, torch.float32) if is_half else moved

        return super()._apply(at_least_float32, recurse)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def _convolve(layer: Conv1d | Conv2d | Conv3d, x: Tensor) -> Tensor:
    with _without_autocast(x):
        return layer._conv_forward(x, layer.weight.to(x.dtype), _cast(layer.bias, x))


def _cast(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(x.dtype)


def _without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
