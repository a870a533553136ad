"""Batch norm with the unbiased running variance, and its arithmetic, which linen shares.

nnx's own keeps the biased variance, and float32 statistics also where the parameters are float64.
Its Linear and Conv need no sibling here: they promote half-precision weights to the dtype of x.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import Array

from cbam_flax.ops import at_least_float32


class BatchNorm(nnx.Module):
    """Batch norm over (N, *S, C) of any rank, whose weights and statistics stay at least float32.

    Training normalises with the biased variance and keeps the unbiased one, as torch does; the
    output has the dtype of the input.
    `train()`, `eval()` and `nnx.view(module, use_running_average=...)` switch the mode.
    """

    def __init__(
        self,
        channels: int,
        eps: float,
        momentum: float,
        *,
        param_dtype: Dtype = jnp.float32,
        axis_name: str | None = None,
    ) -> None:
        dtype = statistics_dtype(param_dtype)
        self.eps, self.momentum, self.axis_name = eps, momentum, axis_name
        self.use_running_average = False
        self.scale = nnx.Param(jnp.ones(channels, dtype))
        self.bias = nnx.Param(jnp.zeros(channels, dtype))
        self.mean = nnx.BatchStat(jnp.zeros(channels, dtype))
        self.var = nnx.BatchStat(jnp.ones(channels, dtype))

    def __call__(self, x: Array) -> Array:
        mean, var = self.mean[...], self.var[...]
        centred = x - mean
        # An empty batch has no statistics.
        if not self.use_running_average and x.size:
            running = mean, var
            centred, mean, var = moments(x, self.axis_name)
            self.mean[...], self.var[...] = update(
                *running, mean, var, positions(x, self.axis_name), self.momentum
            )
        return normalize(centred, var, self.scale[...], self.bias[...], self.eps).astype(x.dtype)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """What `nnx.view` calls.

        Args:
            use_running_average: whether the running statistics normalise, not the batch's.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average


def statistics_dtype(param_dtype: Dtype) -> Dtype:
    """The dtype of a norm's weights and statistics, which need the digits."""
    return jnp.promote_types(param_dtype, jnp.float32)


def moments(x: Array, axis_name: str | None = None) -> tuple[Array, Array, Array]:
    """x (N, *S, C) without its mean, the mean, and the biased variance (C,).

    The statistics are over all axes but the last, and over `axis_name`. The mean is taken off
    twice: what rounding leaves of it in the backward pass would be summed up in the gradients of
    the layer before, where it can be a hundred times the rounding of all else.
    """

    def average(values: Array) -> Array:
        local = values.mean(range(x.ndim - 1))
        return local if axis_name is None else jax.lax.pmean(local, axis_name)

    # Squares of a half precision overflow.
    x = at_least_float32(x)
    mean = average(x)
    centred = x - mean
    centred = centred - average(centred)
    return centred, mean, average(jnp.square(centred))


def positions(x: Array, axis_name: str | None = None) -> int | Array:
    """How many values `moments` takes for each channel; a ValueError if it is a single one."""
    count = math.prod(x.shape[:-1])
    if axis_name is not None:
        return jax.lax.psum(count, axis_name)
    if count == 1:
        raise ValueError(
            f"x has one position in all (shape {x.shape}), and a norm's batch statistics need at "
            f"least 2; pass a larger batch or map, or switch to evaluation"
        )
    return count


def update(
    running_mean: Array,
    running_var: Array,
    mean: Array,
    var: Array,
    count: int | Array,
    momentum: float,
) -> tuple[Array, Array]:
    """The running statistics after a batch; `momentum` is the weight of the new value."""
    unbiased = var * (count / (count - 1))

    def moved(old: Array, new: Array) -> Array:
        # No loss depends on them.
        return jax.lax.stop_gradient((1 - momentum) * old + momentum * new).astype(old.dtype)

    return moved(running_mean, mean), moved(running_var, unbiased)


def normalize(centred: Array, var: Array, scale: Array, bias: Array, eps: float) -> Array:
    """centred / sqrt(var + eps) * scale + bias, by channel."""
    # A float64 map takes no float32 root.
    var = var.astype(jnp.promote_types(centred.dtype, var.dtype))
    return centred / jnp.sqrt(var + eps) * scale + bias
