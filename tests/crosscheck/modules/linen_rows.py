"""linen modules in the manner of CBAM.Flax, and as people write one otherwise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from cbam_core import CBAMSpec
from tests.crosscheck.modules import Row


class Mlp(nn.Module):
    ratio: int

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        x = nn.relu(nn.Conv(channels // self.ratio, (1, 1), use_bias=False)(x))
        return nn.Conv(channels, (1, 1), use_bias=False)(x)


class ChannelAttention(nn.Module):
    ratio: int = 16

    def setup(self):
        self.mlp = Mlp(self.ratio)

    def __call__(self, x):
        pools = x.mean((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
        return nn.sigmoid(self.mlp(pools[0]) + self.mlp(pools[1]))


class SpatialAttention(nn.Module):
    @nn.compact
    def __call__(self, x):
        maps = jnp.concatenate([x.mean(-1, keepdims=True), x.max(-1, keepdims=True)], -1)
        return nn.sigmoid(nn.Conv(1, (3, 3), use_bias=False)(maps))


class Cbam(nn.Module):
    def setup(self):
        self.ca, self.sa = ChannelAttention(), SpatialAttention()

    def __call__(self, x):
        x = self.ca(x) * x
        return self.sa(x) * x


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        maps = jnp.stack([x.mean(-1), x.max(-1)], -1)
        y = nn.Conv(1, (5, 5))(maps)
        y = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-4)(y)
        return x * nn.sigmoid(y)


def bound(channels=32):
    module = Cbam()
    return module.bind(module.init(jax.random.key(0), jnp.ones((1, 5, 5, channels))))


def paired(channels=32):
    module = Cbam()
    return module, module.init(jax.random.key(0), jnp.ones((1, 5, 5, channels)))


ROWS = {
    "cbam_flax": Row(
        bound,
        CBAMSpec(32, kernel_size=3),
        {"presets": ("cbam_flax",), "returns": ("the refined map",)},
    ),
    "pair": Row(paired, CBAMSpec(32, kernel_size=3)),
    "without_variables": Row(
        Normed,
        CBAMSpec(
            16, kernel_size=5, spatial_bias=True, spatial_norm=True, norm_eps=1e-4,
            order="spatial",
        ),
        {"running_variance": "biased"},
        channels=16,
    ),
}  # fmt: skip
