"""The three primitives of `ops` with gradients of their own, which keep x and small maps alone.

    pool    avg and max over some axes of r = M * x
            dr = davg / size + (r = max) * dmax / ties,   dx = M * dr,   dM = sum of x * dr
    scale   y = Ms * Mc * x (+ x)
            dx = Ms * Mc * dy (+ dy),   dMc = sum of Ms * x * dy,   dMs = sum of Mc * x * dy

What TensorFlow derives of the plain composition keeps Mc * x and the places of the maxima, and
divides whole maps; here r and its ties are found again when the gradient comes. x is handed on as
it is: TensorFlow adds up the three gradients of x in one pass, and in the forward pass a graph
computes Mc * x, of which two primitives speak, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

POOLS = ("avg", "max")


def pool_space(
    x: tf.Tensor, pools: Sequence[str], spatial: tf.Tensor | None = None
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """`ops.pool_space`, for pools of POOLS."""
    space = tuple(range(1, len(x.shape) - 1))
    return x, [tf.squeeze(pooled, space) for pooled in _pool(x, spatial, pools, space)]


def pool_channels(
    x: tf.Tensor, channel: tf.Tensor | None = None
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """`ops.pool_channels`."""
    return x, _pool(x, channel, POOLS, (len(x.shape) - 1,))


def scale(
    x: tf.Tensor,
    channel: tf.Tensor | None = None,
    spatial: tf.Tensor | None = None,
    *,
    residual: bool = False,
) -> tf.Tensor:
    """`ops.scale`."""
    gates = [gate for gate in (channel, spatial) if gate is not None]

    def forward(x: tf.Tensor, *gates: tf.Tensor) -> tf.Tensor:
        y = _refined(x, *gates)
        return tf.cast(_wide(x) + y if residual else y, x.dtype)

    @tf.custom_gradient
    def scaled(x: tf.Tensor, *gates: tf.Tensor) -> Any:
        def backward(dy: tf.Tensor) -> list[tf.Tensor]:
            slopes = [forward(dy, *gates)]
            shared = _wide(x) * _wide(dy)
            if channel is not None:
                slopes.append(_sum_over_space(shared, spatial))
            if spatial is not None:
                slopes.append(_sum_over_channels(shared, channel))
            return slopes

        return forward(*_unrecorded(x, *gates)), _when_it_comes(backward)

    return scaled(x, *gates)


def _pool(
    x: tf.Tensor, gate: tf.Tensor | None, pools: Sequence[str], axes: tuple[int, ...]
) -> list[tf.Tensor]:
    """Of gate * x each pool over `axes`, which keep the size 1; the gate has it on the others."""
    over_channels = axes == (len(x.shape) - 1,)
    sum_over_axes = _sum_over_channels if over_channels else _sum_over_space
    sum_over_others = _sum_over_space if over_channels else _sum_over_channels

    @tf.custom_gradient
    def pooled(x: tf.Tensor, *gates: tf.Tensor) -> Any:
        refined = _refined(*_unrecorded(x, *gates))
        values = [_avg(refined, axes) if pool == "avg" else _max(refined, axes) for pool in pools]

        def backward(*dvalues: tf.Tensor) -> list[tf.Tensor]:
            refined = _refined(x, *gates)
            # What all of `refined` gets, and the maxima besides.
            slope = tf.zeros_like(dvalues[0])
            for pool, dvalue in zip(pools, dvalues, strict=True):
                if pool == "avg":
                    slope += dvalue / tf.cast(
                        math.prod(_sizes(x)[axis] for axis in axes), dvalue.dtype
                    )
            for pool, value, dvalue in zip(pools, values, dvalues, strict=True):
                if pool == "max":
                    is_max = refined == value
                    share = dvalue / sum_over_axes(tf.cast(is_max, refined.dtype))
                    # Of a maximum that nothing equals, NaN, this makes NaN everywhere.
                    slope = tf.where(is_max, slope + share, slope + 0 * share)
            slope = tf.broadcast_to(slope, tf.shape(refined))
            slopes = [sum_over_others(_wide(x) * slope)] if gates else []
            return [tf.cast(_refined(slope, *gates), x.dtype), *slopes]

        return values, _when_it_comes(backward)

    return pooled(x) if gate is None else pooled(x, gate)


def _when_it_comes(backward: Callable[..., list[tf.Tensor]]) -> Callable[..., list[tf.Tensor]]:
    """`backward`, computed when its arguments are there.

    A graph would otherwise take the forward pass's products for the same ones, and keep those.
    """

    def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
        with tf.control_dependencies(upstream):
            return backward(*upstream)

    return gradient


def _unrecorded(*inputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The inputs for a forward pass of which an eager tape shall keep nothing.

    A graph needs none, and has tangents of what the forward pass does.
    """
    return tuple(map(tf.stop_gradient, inputs)) if tf.executing_eagerly() else inputs


def _wide(x: tf.Tensor) -> tf.Tensor:
    return x if x.dtype.size >= 4 else tf.cast(x, tf.float32)


def _refined(x: tf.Tensor, *gates: tf.Tensor) -> tf.Tensor:
    x = _wide(x)
    for gate in gates:
        x = gate * x
    return x


def _avg(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    # One axis at a time TensorFlow reads the map in the order of its memory.
    for axis in reversed(axes):
        x = tf.reduce_mean(x, axis, keepdims=True)
    return x


def _max(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_max(x, axes, keepdims=True)


def _sum_over_space(x: tf.Tensor, spatial: tf.Tensor | None = None) -> tf.Tensor:
    """The sum of Ms * x over space, (N, *S, C) -> (N, 1.., C)."""
    # As a product it is faster than as a sum, under XLA many times.
    batch, *space, channels = _sizes(x)
    positions = math.prod(space)
    weights = tf.ones((batch, positions), x.dtype) if spatial is None else spatial
    rows = tf.reshape(weights, (batch, 1, positions))
    total = tf.matmul(rows, tf.reshape(x, (batch, positions, channels)))
    return tf.reshape(total, (batch, *[1] * len(space), channels))


def _sum_over_channels(x: tf.Tensor, channel: tf.Tensor | None = None) -> tf.Tensor:
    """The sum of Mc * x over channels, (N, *S, C) -> (N, *S, 1)."""
    if channel is None:
        return tf.reduce_sum(x, -1, keepdims=True)
    batch, *space, channels = _sizes(x)
    column = tf.reshape(channel, (batch, channels, 1))
    total = tf.matmul(tf.reshape(x, (batch, math.prod(space), channels)), column)
    return tf.reshape(total, (batch, *space, 1))


def _sizes(x: tf.Tensor) -> list[Any]:
    """The shape of x, in numbers as far as they are known."""
    known: list[Any] = x.shape.as_list()
    if None not in known:
        return known
    found = tf.unstack(tf.shape(x))
    return [late if size is None else size for size, late in zip(known, found, strict=True)]
