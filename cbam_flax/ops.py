"""Pooling and gates: the operations on which public CBAMs differ, one rule for all packages."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cbam_core.kernels import kernels_setting
from cbam_flax import fused, native

# The pools for which there are kernels.
AVG_MAX = ("avg", "max")


def at_least_float32(x: Array) -> Array:
    """x itself, or in float32 where its dtype is a half precision."""
    return x.astype(jnp.float32) if x.dtype in (jnp.float16, jnp.bfloat16) else x


def path(x: Array, *gates: Array | None, kernels: bool = True) -> str:
    """How the primitives compute on x, (N, *S, C): by "native" kernels, "fused", or "composition".

    Native kernels know float32, float64 and bfloat16 on a CPU that is JAX's only device, where they
    were built. For several devices, meshes and sizes that are not known what is "fused" runs, XLA's
    operations with derivatives of their own. In float32 alone: XLA computes an x that is cheap anew
    for each use and may round it otherwise, or not at all to a half precision; nothing then equals
    the maximum, and the composition is sure to find one. That runs on GPUs too, where `kernels` is
    False, and where the environment variable CBAM_KERNELS, read when a function is traced, is
    "off".

    Example:
        >>> import jax.numpy as jnp
        >>> from cbam_flax import ops
        >>> ops.path(jnp.ones((2, 7, 7, 8)), kernels=False)
        'composition'
    """
    is_on = kernels and kernels_setting() != "off"
    if not is_on or jax.default_backend() != "cpu":
        return "composition"
    return "native" if native.knows(x, *gates) else _without_kernels(x, *gates)


def _without_kernels(x: Array, *gates: Array | None) -> str:
    dtypes = {array.dtype for array in (x, *gates) if array is not None}
    return "fused" if dtypes == {jnp.dtype("float32")} else "composition"


def pool_space(
    x: Array, pools: Sequence[str], spatial: Array | None = None, *, kernels: bool = True
) -> tuple[Array, list[Array]]:
    """x (N, *S, C) -> x, and of Ms * x one descriptor (N, C) for each name in `pools`.

    x is handed on to the next primitive, so that the gradients of all three meet in one map.
    """
    space = tuple(range(1, x.ndim - 1))
    found = path(x, spatial, kernels=kernels)
    if found != "composition" and set(pools) <= set(AVG_MAX):
        x, *both = _pool(found, x, spatial, space)
        pooled = [both[AVG_MAX.index(pool)] for pool in pools]
    else:
        refined = _refined(x, spatial)
        pooled = [POOLS[pool](refined, space) for pool in pools]
    return x, [one.squeeze(space) for one in pooled]


def pool_channels(
    x: Array, channel: Array | None = None, *, kernels: bool = True
) -> tuple[Array, list[Array]]:
    """x (N, *S, C) -> x, and of Mc * x the maps [avg, max], each (N, *S, 1)."""
    x, *pooled = _pool(path(x, channel, kernels=kernels), x, channel, (x.ndim - 1,))
    return x, pooled


def scale(
    x: Array,
    channel: Array | None = None,
    spatial: Array | None = None,
    *,
    residual: bool = False,
    kernels: bool = True,
) -> Array:
    """Ms * Mc * x, plus x where `residual`, rounded to the dtype of x once: (N, *S, C)."""
    gates = channel, spatial
    found = path(x, *gates, kernels=kernels)
    if found == "native":
        return native.scale(x, *gates, residual, _SCALES[_without_kernels(x, *gates)])
    return _SCALES[found](x, *gates, residual)


def _pool(
    found: str, x: Array, gate: Array | None, axes: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    """On the path found, x, and avg and max of gate * x over `axes`, which keep the size 1."""
    if found == "native":
        plain = _POOLS[_without_kernels(x, gate)]
        return native.pool(x, gate, axes != (x.ndim - 1,), plain)
    return x, *_POOLS[found](x, gate, axes)


def _pool_composition(x: Array, gate: Array | None, axes: tuple[int, ...]) -> tuple[Array, Array]:
    refined = _refined(x, gate)
    return avg(refined, axes), max(refined, axes)


def _scale_composition(
    x: Array, channel: Array | None, spatial: Array | None, residual: bool
) -> Array:
    refined = _refined(_refined(x, channel), spatial)
    return (x + refined if residual else refined).astype(x.dtype)


def _refined(x: Array, gate: Array | None) -> Array:
    x = at_least_float32(x)
    return x if gate is None else gate * x


def avg(x: Array, axes: tuple[int, ...]) -> Array:
    """The mean over `axes`, which keep the size 1, as in all four pools."""
    return x.mean(axes, keepdims=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def max(x: Array, axes: tuple[int, ...]) -> Array:
    """The maximum over neighbouring `axes`; its gradient is split evenly among ties."""
    return x.max(axes, keepdims=True)


@max.defjvp
def _max_jvp(
    axes: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y = max(x, axes)
    # Where x is cheap, XLA computes it anew for each use and may round it otherwise (a fused
    # multiply-add here, none there): then nothing equals y, and only the first place is sure.
    is_max = (x == y) | _is_first_max(x, axes)
    return y, (is_max * dx).sum(axes, keepdims=True) / is_max.sum(axes, x.dtype, keepdims=True)


def _is_first_max(x: Array, axes: tuple[int, ...]) -> Array:
    start = axes[0] % x.ndim
    size = math.prod(x.shape[axis] for axis in axes)
    flat = x.reshape(*x.shape[:start], size, *x.shape[start + len(axes) :])
    return jax.nn.one_hot(flat.argmax(start), size, axis=start, dtype=bool).reshape(x.shape)


def lp(x: Array, axes: tuple[int, ...]) -> Array:
    """The square root of the sum of squares; its gradient is 0 where all of x is 0."""
    squares = (x * x).sum(axes, keepdims=True)
    empty = squares == 0
    # The root's infinite slope at 0 would turn the gradient into NaN, so 0 never reaches it.
    return jnp.where(empty, 0.0, jnp.sqrt(jnp.where(empty, 1.0, squares)))


def lse(x: Array, axes: tuple[int, ...]) -> Array:
    """The logarithm of the sum of exponentials."""
    return jax.nn.logsumexp(x, axes, keepdims=True)


def relu(x: Array) -> Array:
    """max(x, 0), with gradient 0 at 0; NaN passes, also in the gradient, for which JAX has 0."""
    return jnp.where(x <= 0, 0.0, x)


def hard_sigmoid(x: Array) -> Array:
    """clip((x + 3)/6, 0, 1), the hard sigmoid of today's frameworks; gradient 0 at both kinks."""
    # XLA turns x / 6 into x * (1 / 6), which would miss the kink of x / 6 + 0.5.
    return 1 - relu(1 - relu((x + 3) / 6))


def hard_sigmoid_keras2(x: Array) -> Array:
    """clip(0.2 x + 0.5, 0, 1), the hard sigmoid of Keras 2; gradient 0 at both kinks."""
    return 1 - relu(1 - relu(0.2 * x + 0.5))


def double_sigmoid(x: Array) -> Array:
    """2 sigmoid(x), exactly 1 at 0."""
    return 2 * jax.nn.sigmoid(x)


POOLS: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "avg": avg,
    "max": max,
    "lp": lp,
    "lse": lse,
}
GATES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_keras2": hard_sigmoid_keras2,
    "double_sigmoid": double_sigmoid,
}
# The primitives without kernels, by their path.
_POOLS: dict[str, native.Plain] = {"fused": fused.pool, "composition": _pool_composition}
_SCALES: dict[str, native.Plain] = {"fused": fused.scale, "composition": _scale_composition}
