"""Batch norm with the unbiased running variance, its arithmetic that of `cbam_flax.layers`."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from cbam_flax import layers


class BatchNorm(nn.Module):
    """Batch norm over (N, *S, C) of any rank, whose weights and statistics stay at least float32.

    Training normalises with the biased variance and keeps the unbiased one, as torch does; the
    output has the dtype of the input.
    """

    eps: float
    momentum: float
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, use_running_average: bool) -> Array:
        shape, dtype = x.shape[-1:], layers.statistics_dtype(self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, dtype)
        mean, var = running = running_mean.value, running_var.value
        centred = x - mean
        # An empty batch has no statistics.
        if not use_running_average and x.size:
            centred, mean, var = layers.moments(x, self.axis_name)
            running_mean.value, running_var.value = layers.update(
                *running, mean, var, layers.positions(x, self.axis_name), self.momentum
            )
        return layers.normalize(centred, var, scale, bias, self.eps).astype(x.dtype)
