"""The three primitives of `ops` with derivatives of their own, which keep x and small maps alone.

    pool    avg and max over some axes of r = M * x
            dr = davg / size + (r = max) * dmax / ties,   dx = M * dr,   dM = sum of x * dr
    scale   y = Ms * Mc * x (+ x)
            dx = Ms * Mc * dy (+ dy),   dMc = sum of Ms * x * dy,   dMs = sum of Mc * x * dy

Each derivative is a sum of parts that are linear in one tangent, and jax.checkpoint lets them keep
their arguments alone. JAX transposes the parts for the backward pass, so forward mode, higher
derivatives and vmap stay as they are. x is handed on as it is: XLA adds up the three gradients of x
in one pass.

The form is what XLA on CPUs does in few passes, see docs/kernels.md. A sum or a maximum of
products and differences of x and small maps is one pass. But a comparison in it is stored first, as
large as x, so ties are weighed by arithmetic (`_near`); and so is what two passes have in common, a
small map that both broadcast too, so each pass has maps of its own (`_own`).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _scale(x: Array, channel: Array | None, spatial: Array | None, residual: bool) -> Array:
    """Ms * Mc * x, plus x where `residual`: (N, *S, C)."""
    y = _refined(_refined(x, channel), spatial)
    return (x + y if residual else y).astype(x.dtype)


@_scale.defjvp
def _scale_jvp(residual, primals, tangents):
    (x, channel, spatial), (dx, dchannel, dspatial) = primals, tangents

    @jax.checkpoint
    def by_x(channel, spatial, dx):
        return _scale(dx, channel, spatial, residual)

    @jax.checkpoint
    def by_gate(x, other, dgate):
        if other is not None:
            dgate, other = _own(dgate, 4), _own(other, -4)
        return (dgate * _refined(x, other)).astype(x.dtype)

    dy = by_x(channel, spatial, dx)
    if channel is not None:
        dy += by_gate(x, spatial, dchannel)
    if spatial is not None:
        dy += by_gate(x, channel, dspatial)
    return _scale(x, channel, spatial, residual), dy


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _pool(x: Array, gate: Array | None, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Of gate * x the average and the maximum over `axes`, which keep the size 1."""
    return _avg(x, gate, axes), _max(x, gate, axes)


@_pool.defjvp
def _pool_jvp(axes, primals, tangents):
    (x, gate), (dx, dgate) = primals, tangents
    size = math.prod(x.shape[axis] for axis in axes)
    found = _pool(x, gate, axes)

    @jax.checkpoint
    def by_x(x, gate, maximum, dx):
        dx = _refined(dx, gate)
        # Nothing equals a maximum of NaN, but nothing is less either: all get its gradient of NaN.
        is_max = (~(_refined(x, gate) < maximum)).astype(dx.dtype)
        ties = _count(x, gate, maximum, axes)
        return _sum(dx, axes) / size, _sum(is_max * dx, axes) / ties

    @jax.checkpoint
    def by_gate(x, gate, maximum, dgate):
        near, gap = _near(x, gate, maximum, 3)
        ties = _count(x, gate, maximum, axes)
        dx = dgate * _wide(x)
        return _sum(dx * gap, axes) / (gap * size), _sum(dx * near, axes) / (gap * ties)

    tangent = by_x(x, gate, found[1], dx)
    if gate is not None:
        tangent = jax.tree.map(jnp.add, tangent, by_gate(x, gate, found[1], dgate))
    return found, tangent


def _avg(x: Array, gate: Array | None, axes: tuple[int, ...]) -> Array:
    size = math.prod(x.shape[axis] for axis in axes)
    if gate is None:
        return _sum(_wide(x), axes) / size
    if axes == (x.ndim - 1,):
        # As a product, of rows with one column, it is faster.
        column = gate.reshape(gate.shape[0], gate.shape[-1])
        total = jnp.einsum("n...c,nc->n...", _wide(x), column, precision=lax.Precision.HIGHEST)
        return total[..., None] / size
    return _sum(_refined(x, _own(gate, -2)), axes) / (size * 2.0**-2)


def _max(x: Array, gate: Array | None, axes: tuple[int, ...]) -> Array:
    if gate is None:
        return _wide(x).max(axes, keepdims=True)
    return _refined(x, _own(gate, 1)).max(axes, keepdims=True) / 2.0


def _count(x: Array, gate: Array | None, maximum: Array, axes: tuple[int, ...]) -> Array:
    """How many positions hold the maximum; NaN where that is NaN."""
    near, gap = _near(x, gate, maximum, 2)
    size = math.prod(x.shape[axis] for axis in axes)
    return jnp.where(maximum == -jnp.inf, size, _sum(near, axes) / gap)


def _near(x: Array, gate: Array | None, maximum: Array, power: int) -> tuple[Array, Array]:
    """A weight for each position, `gap` where gate * x is the maximum and 0 elsewhere, and `gap`.

    It is the distance from the maximum to the next lower number, and as a power of two it makes
    sums of weights exact. A maximum of almost 0 gets a larger one, by which gradients can be
    divided: what lies nearer to it than 1e-19 then weighs something.
    """
    x, gate, maximum = lax.stop_gradient((x, gate, maximum))
    limits = jnp.finfo(maximum.dtype)
    # So that infinity equals infinity, and no power of two leads there.
    maximum = jnp.clip(maximum, -float(limits.max) / 2**4, float(limits.max) / 2**4)
    gap = maximum - jnp.nextafter(maximum, -jnp.inf)
    gap = jnp.maximum(gap, float(limits.tiny) ** 0.5)
    if gate is not None:
        gate, maximum, gap = _own(gate, power), _own(maximum, power), _own(gap, power)
    distance = maximum - jnp.minimum(_refined(x, gate), maximum)
    return gap - jnp.minimum(distance, gap), gap


def _own(small: Array, power: int) -> Array:
    """small * 2**power, which scales all that is made of it without rounding."""
    return small * 2.0**power


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    return x.sum(axes, keepdims=True)


def _refined(x: Array, gate: Array | None) -> Array:
    return _wide(x) if gate is None else gate * _wide(x)


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


# Outside of a compiled function they would otherwise be traced at every call.
pool = jax.jit(_pool, static_argnums=2)
scale = jax.jit(_scale, static_argnums=3)
