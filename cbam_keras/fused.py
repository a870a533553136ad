"""The three primitives of `ops` with gradients of their own, which keep x and small maps alone.

    pool    avg and max over some axes of r = M * x
            dr = davg / size + (r = max) * dmax / ties,   dx = M * dr,   dM = sum of x * dr
    scale   y = Ms * Mc * x (+ x)
            dx = Ms * Mc * dy (+ dy),   dMc = sum of Ms * x * dy,   dMs = sum of Mc * x * dy

What a backend derives of the plain composition keeps Mc * x and the places of the maxima, and
divides whole maps; here r and its ties are found again when the gradient comes. x is handed on as
it is, and a backend adds up its three gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import KerasTensor as Tensor

POOLS = ("avg", "max")


def pool_space(
    x: Tensor, pools: Sequence[str], spatial: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """`ops.pool_space`, for pools of POOLS."""
    space = tuple(range(1, x.ndim - 1))
    return x, [keras.ops.squeeze(pooled, space) for pooled in _pool(x, spatial, pools, space)]


def pool_channels(x: Tensor, channel: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """`ops.pool_channels`."""
    return x, _pool(x, channel, POOLS, (x.ndim - 1,))


def scale(
    x: Tensor,
    channel: Tensor | None = None,
    spatial: Tensor | None = None,
    *,
    residual: bool = False,
) -> Tensor:
    """`ops.scale`."""

    def forward(x: Tensor, *gates: Tensor) -> Tensor:
        y = _refined(x, *gates)
        return keras.ops.cast(_wide(x) + y if residual else y, x.dtype)

    def backward(upstream: list[Tensor], x: Tensor, *gates: Tensor) -> list[Tensor]:
        (dy,) = upstream
        slopes = [forward(dy, *gates)]
        shared = _wide(x) * _wide(dy)
        if channel is not None:
            slopes.append(_sum_over_space(shared, None if spatial is None else gates[-1]))
        if spatial is not None:
            slopes.append(_sum_over_channels(shared, None if channel is None else gates[0]))
        return slopes

    @keras.ops.custom_gradient
    def scaled(*inputs: Tensor) -> Any:
        return forward(*inputs), _gradient(backward, inputs)

    return scaled(*[given for given in (x, channel, spatial) if given is not None])


def _pool(
    x: Tensor, gate: Tensor | None, pools: Sequence[str], axes: tuple[int, ...]
) -> list[Tensor]:
    """Of gate * x each pool over `axes`, which keep the size 1; the gate has it on the others."""
    over_channels = axes == (x.ndim - 1,)
    sum_over_axes = _sum_over_channels if over_channels else _sum_over_space
    sum_over_others = _sum_over_space if over_channels else _sum_over_channels

    def avg(refined: Tensor) -> Tensor:
        return keras.ops.sum(refined, axes, keepdims=True) / _count(refined, axes)

    def max(refined: Tensor) -> Tensor:
        return keras.ops.max(refined, axes, keepdims=True)

    def maxima(refined: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Where `refined` is the maximum, and how often it is."""

        def ties(is_max: Tensor) -> Tensor:
            return sum_over_axes(keras.ops.cast(is_max, refined.dtype))

        def with_the_first() -> tuple[Tensor, Tensor]:
            either = keras.ops.logical_or(is_max, is_first_max(refined - value, axes))
            return either, ties(either)

        is_max = refined == value
        number = ties(is_max)

        # Where x is cheap, XLA computes it anew for each use and may round it otherwise (a fused
        # multiply-add here, none there): then nothing equals the maximum.
        lost = keras.ops.any(number == 0)
        return keras.ops.cond(lost, with_the_first, lambda: (is_max, number))

    @keras.ops.custom_gradient
    def pooled(*inputs: Tensor) -> Any:
        refined = _refined(*inputs)
        values = [avg(refined) if pool == "avg" else max(refined) for pool in pools]

        def backward(dvalues: list[Tensor], x: Tensor, *gates: Tensor) -> list[Tensor]:
            refined = _refined(x, *gates)
            # What all of `refined` gets, and the maxima besides.
            slope = keras.ops.zeros_like(dvalues[0])
            for pool, dvalue in zip(pools, dvalues, strict=True):
                if pool == "avg":
                    slope = slope + dvalue / _count(refined, axes)
            for pool, value, dvalue in zip(pools, values, dvalues, strict=True):
                if pool == "max":
                    is_max, number = maxima(refined, value)
                    share = dvalue / number
                    # What is not finite reaches all of `refined`, times 0.
                    slope = keras.ops.where(is_max, slope + share, slope + 0 * share)
            slope = keras.ops.broadcast_to(slope, keras.ops.shape(refined))
            slopes = [sum_over_others(_wide(x) * slope)] if gates else []
            return [keras.ops.cast(_refined(slope, *gates), x.dtype), *slopes]

        # On torch Keras knows custom gradients of one output alone.
        outputs = keras.ops.stack(values) if _is_torch() else tuple(values)
        return outputs, _gradient(backward, inputs)

    outputs = pooled(x) if gate is None else pooled(x, gate)
    return [outputs[i] for i in range(len(pools))]


def _gradient(
    backward: Callable[..., list[Tensor]], inputs: tuple[Tensor, ...]
) -> Callable[..., Any]:
    """`backward` of the upstream gradients and the inputs, as each backend calls a gradient."""

    def gradient(*arguments: Any, upstream: Tensor | None = None) -> Any:
        if upstream is None:
            slopes = backward(keras.tree.flatten(arguments), *inputs)
        else:  # torch, which hands over the inputs, of which gradients are taken too
            stacked = upstream.ndim > arguments[0].ndim
            slopes = backward([*upstream] if stacked else [upstream], *arguments)
        return tuple(slopes) if len(slopes) > 1 else slopes[0]

    return gradient


def is_first_max(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Where x has the first of its maxima over neighbouring `axes`."""
    shape, start = keras.ops.shape(x), axes[0] % x.ndim
    size = math.prod(shape[axis] for axis in axes)
    flat = keras.ops.reshape(x, (*shape[:start], size, *shape[start + len(axes) :]))
    first = keras.ops.expand_dims(keras.ops.argmax(flat, start), start)
    places = keras.ops.reshape(
        keras.ops.arange(size, dtype=first.dtype), (size, *[1] * (flat.ndim - start - 1))
    )
    return keras.ops.reshape(first == places, shape)


def _wide(x: Tensor) -> Tensor:
    half = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return keras.ops.cast(x, "float32") if half else x


def _refined(x: Tensor, *gates: Tensor) -> Tensor:
    x = _wide(x)
    for gate in gates:
        x = gate * x
    return x


def _count(x: Tensor, axes: tuple[int, ...]) -> int | Tensor:
    sizes = keras.ops.shape(x)
    number = math.prod(sizes[axis] for axis in axes)
    return number if isinstance(number, int) else keras.ops.cast(number, x.dtype)


def _sum_over_space(x: Tensor, spatial: Tensor | None = None) -> Tensor:
    """The sum of Ms * x over space, (N, *S, C) -> (N, 1.., C)."""
    # As a product it is faster than as a sum, under XLA many times.
    batch, *space, channels = keras.ops.shape(x)
    positions = math.prod(space)
    weights = keras.ops.ones((batch, positions), x.dtype) if spatial is None else spatial
    rows = keras.ops.reshape(weights, (batch, 1, positions))
    total = rows @ keras.ops.reshape(x, (batch, positions, channels))
    return keras.ops.reshape(total, (batch, *[1] * len(space), channels))


def _sum_over_channels(x: Tensor, channel: Tensor | None = None) -> Tensor:
    """The sum of Mc * x over channels, (N, *S, C) -> (N, *S, 1)."""
    if channel is None:
        return keras.ops.sum(x, -1, keepdims=True)
    batch, *space, channels = keras.ops.shape(x)
    column = keras.ops.reshape(channel, (batch, channels, 1))
    total = keras.ops.reshape(x, (batch, math.prod(space), channels)) @ column
    return keras.ops.reshape(total, (batch, *space, 1))


def _is_torch() -> bool:
    return keras.config.backend() == "torch"
