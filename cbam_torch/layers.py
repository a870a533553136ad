"""Linear, convolution and batch norm in the dtype of their input, whatever that of their weights.

The gates compute in at least float32 (see `ops.at_least_float32`), also where the weights are
half-precision numbers or a surrounding autocast would round to them.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn


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
    """Batch norm over (N, C, *S) of any rank, whose weights and statistics stay at least float32.

    Training normalises with the biased variance and keeps the unbiased one, as torch does. Where
    `synchronized`, the batch is that of all processes, on any device; on a GPU
    `nn.SyncBatchNorm.convert_sync_batchnorm` makes of it torch's own, which has faster kernels and
    refuses a CPU.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        channels: int,
        eps: float,
        momentum: float,
        *,
        synchronized: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(channels, eps, momentum, **options)
        self.synchronized = synchronized
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
        wide = x.to(self.weight.dtype)
        is_shared = self.synchronized and self.training and _is_one_of_many()
        y = self.over_all_processes(wide) if is_shared else super().forward(wide)
        return y.to(x.dtype)

    def over_all_processes(self, x: Tensor) -> Tensor:
        """x (N, C, *S) by the batch statistics of all processes, which move the running ones."""
        axes, by_channel = (0, *range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
        total = _SumOverProcesses.apply
        count = total(x.new_tensor(x.numel() // x.shape[1]))
        mean = total(x.sum(axes)) / count
        centred = x - mean.view(by_channel)
        var = total(centred.square().sum(axes)) / count
        self.update(mean, var, count)
        scale = self.weight / (var + self.eps).sqrt()
        return centred * scale.view(by_channel) + self.bias.view(by_channel)

    @torch.no_grad()
    def update(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of `count` values, if that many have any."""
        unbiased = var * (count / (count - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.copy_(torch.where(count > 1, running.lerp(new, self.momentum), running))
        self.num_batches_tracked += 1


def _is_one_of_many() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOverProcesses.apply(gradient.contiguous())


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
