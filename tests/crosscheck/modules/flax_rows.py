"""nnx modules as people write a CBAM in Flax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from cbam_core import CBAMSpec
from tests.crosscheck.modules import Row


class Channel(nnx.Module):
    def __init__(self, channels, ratio, rngs):
        self.fc1 = nnx.Linear(channels, channels // ratio, use_bias=False, rngs=rngs)
        self.fc2 = nnx.Linear(channels // ratio, channels, use_bias=False, rngs=rngs)

    def __call__(self, x):
        pools = x.mean((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
        return x * nnx.sigmoid(sum(self.fc2(nnx.relu(self.fc1(pool))) for pool in pools))


class Cbam(nnx.Module):
    """With a norm, whose running variance nnx keeps biased, and a seed of no use."""

    def __init__(self, channels=32, ratio=8):
        rngs = nnx.Rngs(0)
        self.channel = Channel(channels, ratio, rngs)
        self.conv = nnx.Conv(2, 1, (7, 7), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(1, rngs=rngs)
        self.dropout = nnx.Dropout(0.0, rngs=rngs)

    def __call__(self, x):
        x = self.channel(x)
        maps = jnp.stack([x.max(-1), x.mean(-1)], -1)
        return x * self.dropout(nnx.sigmoid(self.norm(self.conv(maps))))


class WinnerTakesAll(nnx.Module):
    """Takes the maximum by its index, which has one winner."""

    def __init__(self, channels=16):
        self.channel = Channel(channels, 4, nnx.Rngs(0))

    def __call__(self, x):
        flat = x.reshape(len(x), -1, x.shape[-1])
        largest = jnp.take_along_axis(flat, flat.argmax(1, keepdims=True), 1)[:, 0]
        hidden = [jax.nn.relu(self.channel.fc1(pool)) for pool in (flat.mean(1), largest)]
        return nnx.hard_sigmoid(sum(self.channel.fc2(one) for one in hidden))


ROWS = {
    "cbam": Row(
        Cbam,
        CBAMSpec(32, hidden=4, spatial_norm=True, norm_momentum=0.01),
        {
            "running_variance": "biased",
            "ties": {"space": "even", "channels": "even"},
        },
    ),
    "winner_takes_all": Row(
        WinnerTakesAll,
        CBAMSpec(16, hidden=4, order="channel", gate="hard_sigmoid"),
        {"ties": {"space": "first"}, "returns": ("the channel gate",)},
    ),
}
