"""Pooling and gates: the operations on which public CBAMs differ, one rule for all packages.

On JAX and torch, Keras promotes float64 to float32 (`keras.backend.result_type`), and so do
`keras.ops.mean` and a few others; what stands here keeps the dtype of x on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
from keras import KerasTensor as Tensor

from cbam_core.kernels import kernels_setting
from cbam_keras import fused
from cbam_keras.devices import is_on_cpu


def at_least_float32(x: Tensor) -> Tensor:
    """x itself, or in float32 where its dtype is a half precision."""
    half = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return keras.ops.cast(x, "float32") if half else x


def path(x: Tensor, *, kernels: bool = True) -> str:
    """How the primitives compute: "fused", with gradients of their own, or "composition".

    The former is for CPUs, for elsewhere products of float32 may be rounded to TF32, but not for a
    batch of 0. The environment variable CBAM_KERNELS=off, read when a graph is traced, turns the
    former off.

    Example:
        >>> import keras
        >>> from cbam_keras import ops
        >>> x = keras.ops.ones((2, 7, 7, 8))
        >>> ops.path(x), ops.path(x, kernels=False)
        ('fused', 'composition')
    """
    is_on = kernels and kernels_setting() != "off"
    fits = 0 not in tuple(x.shape) and is_on_cpu()
    return "fused" if is_on and fits else "composition"


def pool_space(
    x: Tensor, pools: Sequence[str], spatial: Tensor | None = None, *, kernels: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """x (N, *S, C) -> x, and of Ms * x one descriptor (N, C) for each name in `pools`.

    x is handed on as it is, and the backend adds up its three gradients; in cbam_torch they meet
    there.
    """
    if path(x, kernels=kernels) == "fused" and set(pools) <= set(fused.POOLS):
        return fused.pool_space(x, pools, spatial)
    refined = _refined(x, spatial)
    space = tuple(range(1, x.ndim - 1))
    return x, [keras.ops.squeeze(POOLS[pool](refined, space), space) for pool in pools]


def pool_channels(
    x: Tensor, channel: Tensor | None = None, *, kernels: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """x (N, *S, C) -> x, and of Mc * x the maps [avg, max], each (N, *S, 1)."""
    if path(x, kernels=kernels) == "fused":
        return fused.pool_channels(x, channel)
    refined = _refined(x, channel)
    return x, [avg(refined, (-1,)), max(refined, (-1,))]


def scale(
    x: Tensor,
    channel: Tensor | None = None,
    spatial: Tensor | None = None,
    *,
    residual: bool = False,
    kernels: bool = True,
) -> Tensor:
    """Ms * Mc * x, plus x where `residual`, rounded to the dtype of x once: (N, *S, C)."""
    if path(x, kernels=kernels) == "fused":
        return fused.scale(x, channel, spatial, residual=residual)
    refined = _refined(_refined(x, channel), spatial)
    return keras.ops.cast(at_least_float32(x) + refined if residual else refined, x.dtype)


def _refined(x: Tensor, gate: Tensor | None) -> Tensor:
    x = at_least_float32(x)
    return x if gate is None else keras.ops.multiply(gate, x)


def avg(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean over `axes`, which keep the size 1, as in all four pools."""
    return keras.ops.sum(x, axes, keepdims=True) / count(x, axes)


def max(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The maximum over neighbouring `axes`; its gradient is split evenly among ties."""
    if 0 in tuple(x.shape):
        # Keras on torch refuses a batch of 0, whose maximum is as empty as its sum.
        return keras.ops.sum(x, axes, keepdims=True)

    @keras.ops.custom_gradient
    def split_evenly(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        y = keras.ops.max(x, axes, keepdims=True)

        def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
            dy = arguments[-1] if upstream is None else upstream
            # Where x is cheap, XLA computes it anew for each use and may round it otherwise (a
            # fused multiply-add here, none there): then nothing equals y, and only the first
            # place is sure. Of x - y, since Keras on JAX searches in float32, where different
            # float64 values may be one.
            is_max = keras.ops.logical_or(x == y, fused.is_first_max(x - y, axes))
            is_max = keras.ops.cast(is_max, x.dtype)
            return is_max * (dy / keras.ops.sum(is_max, axes, keepdims=True))

        # A copy, since on torch the gradient would hold what holds the gradient: nothing ended it.
        return keras.ops.copy(y), gradient

    return split_evenly(x)


def lp(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The square root of the sum of squares; its gradient is 0 where all of x is 0."""
    squares = keras.ops.sum(x * x, axes, keepdims=True)
    empty = squares == 0
    # The root's infinite slope at 0 would turn the gradient into NaN, so 0 never reaches it.
    root = keras.ops.sqrt(keras.ops.where(empty, keras.ops.ones_like(squares), squares))
    return keras.ops.where(empty, keras.ops.zeros_like(root), root)


def lse(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The logarithm of the sum of exponentials."""
    return keras.ops.logsumexp(x, axes, keepdims=True)


def max_pool(x: Tensor) -> Tensor:
    """The maximum of 3x3 windows at stride 2, (N, H, W, C) -> (N, ceil(H / 2), ceil(W / 2), C).

    Padded with -inf on both sides; of ties the first has the gradient.
    """
    padded = keras.ops.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-math.inf)
    return keras.ops.max_pool(padded, 3, 2, data_format="channels_last")


def relu(x: Tensor) -> Tensor:
    """max(x, 0) with gradient 0 at 0; NaN passes, also backward.

    Of `keras.ops.relu` TensorFlow's gradient makes NaN of infinity times 0, and JAX's 0 of NaN.
    """
    return keras.ops.where(x <= 0, keras.ops.zeros_like(x), x)


def hard_sigmoid(x: Tensor) -> Tensor:
    """clip((x + 3)/6, 0, 1), the hard sigmoid of today's frameworks; gradient 0 at both kinks."""
    # XLA turns x / 6 into x * (1 / 6), which would miss the kink of x / 6 + 0.5.
    return 1 - relu(1 - relu((x + 3) / 6))


def hard_sigmoid_keras2(x: Tensor) -> Tensor:
    """clip(0.2 x + 0.5, 0, 1), the hard sigmoid of Keras 2; gradient 0 at both kinks."""
    return 1 - relu(1 - relu(0.2 * x + 0.5))


def double_sigmoid(x: Tensor) -> Tensor:
    """2 sigmoid(x), exactly 1 at 0."""
    return 2 * keras.ops.sigmoid(x)


def count(x: Tensor, axes: tuple[int, ...]) -> int | Tensor:
    """The number of values of x along `axes`; a tensor where a graph does not know it yet."""
    sizes = keras.ops.shape(x)
    number = math.prod(sizes[axis] for axis in axes)
    return number if isinstance(number, int) else keras.ops.cast(number, x.dtype)


POOLS: dict[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    "avg": avg,
    "max": max,
    "lp": lp,
    "lse": lse,
}
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": keras.ops.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_keras2": hard_sigmoid_keras2,
    "double_sigmoid": double_sigmoid,
}
