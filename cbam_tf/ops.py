"""Pooling and gates: the operations on which public CBAMs differ, one rule for all packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from cbam_core.kernels import kernels_setting
from cbam_tf import fused


def at_least_float32(x: tf.Tensor) -> tf.Tensor:
    """x itself, or in float32 where its dtype is a half precision."""
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x


def path(x: tf.Tensor, *, kernels: bool = True) -> str:
    """How the primitives compute: "fused", with gradients of their own, or "composition".

    The former is for CPUs, for elsewhere products of float32 may be rounded to TF32, but not for a
    batch of 0. The environment variable CBAM_KERNELS=off, read when a graph is traced, turns the
    former off.

    Example:
        >>> import tensorflow as tf
        >>> from cbam_tf import ops
        >>> ops.path(tf.ones([2, 7, 7, 8])), ops.path(tf.ones([2, 7, 7, 8]), kernels=False)
        ('fused', 'composition')
    """
    is_on = kernels and kernels_setting() != "off"
    fits = 0 not in tuple(x.shape) and not tf.config.list_logical_devices("GPU")
    return "fused" if is_on and fits else "composition"


def pool_space(
    x: tf.Tensor, pools: Sequence[str], spatial: tf.Tensor | None = None, *, kernels: bool = True
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """x (N, *S, C) -> x, and of Ms * x one descriptor (N, C) for each name in `pools`.

    x is handed on as it is, and TensorFlow adds up its three gradients; in cbam_torch they meet
    there.
    """
    if path(x, kernels=kernels) == "fused" and set(pools) <= set(fused.POOLS):
        return fused.pool_space(x, pools, spatial)
    refined = _refined(x, spatial)
    space = tuple(range(1, len(x.shape) - 1))
    return x, [tf.squeeze(POOLS[pool](refined, space), space) for pool in pools]


def pool_channels(
    x: tf.Tensor, channel: tf.Tensor | None = None, *, kernels: bool = True
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """x (N, *S, C) -> x, and of Mc * x the maps [avg, max], each (N, *S, 1)."""
    if path(x, kernels=kernels) == "fused":
        return fused.pool_channels(x, channel)
    refined = _refined(x, channel)
    return x, [avg(refined, (-1,)), max(refined, (-1,))]


def scale(
    x: tf.Tensor,
    channel: tf.Tensor | None = None,
    spatial: tf.Tensor | None = None,
    *,
    residual: bool = False,
    kernels: bool = True,
) -> tf.Tensor:
    """Ms * Mc * x, plus x where `residual`, rounded to the dtype of x once: (N, *S, C)."""
    if path(x, kernels=kernels) == "fused":
        return fused.scale(x, channel, spatial, residual=residual)
    refined = _refined(_refined(x, channel), spatial)
    return tf.cast(at_least_float32(x) + refined if residual else refined, x.dtype)


def _refined(x: tf.Tensor, gate: tf.Tensor | None) -> tf.Tensor:
    x = at_least_float32(x)
    return x if gate is None else gate * x


def avg(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """The mean over `axes`, which keep the size 1, as in all four pools."""
    return tf.reduce_mean(x, axes, keepdims=True)


def max(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """The maximum over `axes`; reduce_max splits the gradient evenly among ties."""
    return tf.reduce_max(x, axes, keepdims=True)


def lp(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """The square root of the sum of squares; its gradient is 0 where all of x is 0."""
    squares = tf.reduce_sum(x * x, axes, keepdims=True)
    empty = squares == 0
    # The root's infinite slope at 0 would turn the gradient into NaN, so 0 never reaches it.
    root = tf.sqrt(tf.where(empty, tf.ones_like(squares), squares))
    return tf.where(empty, tf.zeros_like(squares), root)


def lse(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """The logarithm of the sum of exponentials."""
    return tf.reduce_logsumexp(x, axes, keepdims=True)


def max_pool(x: tf.Tensor) -> tf.Tensor:
    """The maximum of 3x3 windows at stride 2, (N, H, W, C) -> (N, ceil(H / 2), ceil(W / 2), C).

    Of ties the first has the gradient. XLA has no pool with explicit padding, hence the pad.
    """
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
    return tf.nn.max_pool2d(padded, 3, 2, "VALID")


def relu(x: tf.Tensor) -> tf.Tensor:
    """max(x, 0), with gradient 0 where x <= 0; NaN passes, forward and backward.

    tf.nn.relu's gradient makes NaN of infinity times 0, and under XLA 0 of NaN.
    """
    return tf.where(x <= 0, tf.zeros_like(x), x)


def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """clip((x + 3)/6, 0, 1), the hard sigmoid of today's frameworks; gradient 0 at both kinks."""
    # XLA turns x / 6 into x * (1 / 6), which would miss the kink of x / 6 + 0.5.
    return 1 - relu(1 - relu((x + 3) / 6))


def hard_sigmoid_keras2(x: tf.Tensor) -> tf.Tensor:
    """clip(0.2 x + 0.5, 0, 1), the hard sigmoid of Keras 2; gradient 0 at both kinks."""
    return 1 - relu(1 - relu(0.2 * x + 0.5))


def double_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """2 sigmoid(x), exactly 1 at 0."""
    return 2 * tf.sigmoid(x)


POOLS: dict[str, Callable[[tf.Tensor, tuple[int, ...]], tf.Tensor]] = {
    "avg": avg,
    "max": max,
    "lp": lp,
    "lse": lse,
}
GATES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "sigmoid": tf.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_keras2": hard_sigmoid_keras2,
    "double_sigmoid": double_sigmoid,
}
