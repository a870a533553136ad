"""The primitives by the kernels of `cbam_core.native`, which XLA calls on CPUs.

They are operations of JAX with rules of their own, for jit, derivatives and vmap. All arrays begin
with the samples, and (N, 0) is what is not there, so that vmap is a larger batch.

For the backward pass they keep x, the gates, and of each pooled number the maximum and how often it
occurs. A pool hands x on, so that the gradients of all three primitives meet in one map, which is
written once and then changed in place. Forward mode, derivatives of gradients, and exported
programs, in which there can be no kernels, are left to plain operations.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cbam_core.native import DTYPES, NAMES, kernels

# A primitive by plain operations: that of `fused`, or the composition of `ops`.
Plain = Callable[..., Any]


def knows(x: Array, *gates: Array | None) -> bool:
    """Whether there are kernels for maps like x, (N, *S, C), and gates like these.

    Of several devices XLA could not share a kernel's work out, nor of a mesh, so there are none.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return (
        x.dtype.name in DTYPES
        and all(gate is None or gate.dtype == wide for gate in gates)
        and all(isinstance(size, int) and size > 0 for size in x.shape)
        and jax.device_count() == 1
        and jax.sharding.get_abstract_mesh().empty
        and _are_registered()
    )


@functools.cache
def _are_registered() -> bool:
    """Whether there are kernels and XLA takes them; tells once where it does not."""
    found = kernels()
    if found is None:
        return False
    try:
        for name in NAMES:
            function = jax.ffi.pycapsule(getattr(found, f"xla_{name}"))
            jax.ffi.register_ffi_target(f"cbam_{name}", function, platform="cpu")
    except RuntimeError as error:
        warnings.warn(
            f"cbam runs on plain operations, for this JAX does not take its kernels ({error}); set "
            "CBAM_KERNELS=off to hear no more",
            stacklevel=2,
        )
        return False
    return True


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _pool(
    x: Array, gate: Array | None, over_space: bool, plain: Plain
) -> tuple[Array, Array, Array]:
    """x, (N, *S, C), and avg and max of gate * x over space or channels, which keep the size 1.

    `plain(x, gate, axes)` is these two.
    """
    options = {"over_space": over_space, "plain": plain}
    avg, most, _ = _POOL.bind(x, _or_nothing(gate, x), **options)
    return x, avg, most


@_pool.defjvp
def _pool_jvp(over_space, plain, primals, tangents):
    x, gate, dx, dgate = (_or_nothing(one, primals[0]) for one in (*primals, *tangents))
    options = {"over_space": over_space, "plain": plain}
    avg, most, ties = _POOL.bind(x, gate, **options)
    return (x, avg, most), tuple(_POOL_TANGENT.bind(x, gate, most, ties, dx, dgate, **options))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _scale(
    x: Array, channel: Array | None, spatial: Array | None, residual: bool, plain: Plain
) -> Array:
    """Ms * Mc * x, plus x where `residual`: `plain(x, channel, spatial, residual)`."""
    inputs = (_or_nothing(one, x) for one in (x, channel, spatial))
    return _SCALE.bind(*inputs, residual=residual, plain=plain)[0]


@_scale.defjvp
def _scale_jvp(residual, plain, primals, tangents):
    arrays = [_or_nothing(one, primals[0]) for one in (*primals, *tangents)]
    options = {"residual": residual, "plain": plain}
    return _SCALE.bind(*arrays[:3], **options)[0], _SCALE_TANGENT.bind(*arrays, **options)[0]


# Outside of a compiled function they would otherwise be traced at every call.
pool = jax.jit(_pool, static_argnums=(2, 3))
scale = jax.jit(_scale, static_argnums=(3, 4))


def _nothing(like: Any) -> Array:
    return jnp.zeros((like.shape[0], 0), jnp.promote_types(like.dtype, jnp.float32))


def _or_nothing(array: Array | None, x: Array) -> Array:
    return _nothing(x) if array is None else array


def _or_none(array: Array) -> Array | None:
    return array if array.size else None


def _or_zeros(array: Array, like: Array) -> Array:
    return array if array.shape == like.shape else jnp.zeros_like(like)


# --------------------------------------------------------------------------------------- by kernels


def _pool_native(x: Array, gate: Array, *, over_space: bool, plain: Plain) -> list[Array]:
    """avg, max, and how many positions or channels are the maximum."""
    shape = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]) if over_space else (*x.shape[:-1], 1)
    found = jax.ShapeDtypeStruct(shape, gate.dtype)
    return _call("pool_columns" if over_space else "pool_rows", [found] * 3, x, gate)


def _pool_gradient_native(
    *arrays: Array, wanted: Sequence[bool], over_space: bool, plain: Plain
) -> list[Array]:
    """The gradients of x, which has that of the x handed on, d_y, and of the gate."""
    x, gate, most, ties, d_y, d_avg, d_max = arrays
    name = "pool_columns_backward" if over_space else "pool_rows_backward"
    inputs = (x, gate, most, ties, d_avg, d_max, d_y)
    in_place = {6: 0} if wanted[0] and d_y.size else None
    return _call(name, _only(wanted, (x, gate)), *inputs, in_place=in_place)


def _scale_native(
    x: Array, channel: Array, spatial: Array, *, residual: bool, plain: Plain
) -> list[Array]:
    return _call("scale", [x], x, spatial, channel, residual=np.bool_(residual))


def _scale_gradient_native(
    *arrays: Array, wanted: Sequence[bool], residual: bool, plain: Plain
) -> list[Array]:
    """The gradients of x and of both gates."""
    x, channel, spatial, d_y = arrays
    outputs = _only(wanted, (x, channel, spatial))
    inputs = (x, spatial, channel, d_y)
    # Positions are the rows of a map, and rows come first.
    d_x, d_spatial, d_channel = _call(
        "scale_backward", [outputs[0], *outputs[:0:-1]], *inputs, residual=np.bool_(residual)
    )
    return [d_x, d_channel, d_spatial]


def _call(
    name: str,
    outputs: Sequence[Any],
    *inputs: Array,
    in_place: dict[int, int] | None = None,
    **options: Any,
) -> list[Array]:
    """Call a kernel, whose outputs are like those; `in_place` says which input becomes which."""
    shapes = [jax.ShapeDtypeStruct(one.shape, one.dtype) for one in outputs]
    run = jax.ffi.ffi_call(f"cbam_{name}", shapes, input_output_aliases=in_place)
    return list(run(*inputs, **options))


def _only(wanted: Sequence[bool], arrays: Sequence[Array]) -> list[Array]:
    return [a if is_wanted else _nothing(a) for a, is_wanted in zip(arrays, wanted, strict=True)]


# ------------------------------------------------------------------------------ by plain operations


def _pool_plain(x: Array, gate: Array, *, over_space: bool, plain: Plain) -> list[Array]:
    axes = tuple(range(1, x.ndim - 1)) if over_space else (x.ndim - 1,)
    avg, most = plain(x, _or_none(gate), axes)
    return [avg, most, jnp.ones_like(most)]


def _pool_tangent_plain(*arrays: Array, **options: Any) -> list[Array]:
    x, gate, _, _, dx, dgate = arrays
    moved = _or_zeros(dx, x), _or_zeros(dgate, gate)
    _, (davg, dmax, _) = jax.jvp(functools.partial(_pool_plain, **options), (x, gate), moved)
    return [moved[0], davg, dmax]


def _pool_gradient_plain(*arrays: Array, wanted: Sequence[bool], **options: Any) -> list[Array]:
    x, gate, most, _, d_y, d_avg, d_max = arrays
    _, pullback = jax.vjp(functools.partial(_pool_plain, **options), x, gate)
    upstream = [_or_zeros(one, most) for one in (d_avg, d_max)]
    d_x, d_gate = pullback([*upstream, jnp.zeros_like(most)])
    return _only(wanted, (d_x + _or_zeros(d_y, x), d_gate))


def _scale_plain(
    x: Array, channel: Array, spatial: Array, *, residual: bool, plain: Plain
) -> list[Array]:
    return [plain(x, _or_none(channel), _or_none(spatial), residual)]


def _scale_tangent_plain(*arrays: Array, **options: Any) -> list[Array]:
    inputs = arrays[:3]
    moved = tuple(map(_or_zeros, arrays[3:], inputs))
    return jax.jvp(functools.partial(_scale_plain, **options), inputs, moved)[1]


def _scale_gradient_plain(*arrays: Array, wanted: Sequence[bool], **options: Any) -> list[Array]:
    *inputs, d_y = arrays
    _, pullback = jax.vjp(functools.partial(_scale_plain, **options), *inputs)
    return _only(wanted, pullback([d_y]))


# ----------------------------------------------------------------------------- as operations of JAX


def _operation(name: str, native: Callable[..., Any], plain: Callable[..., Any]) -> Primitive:
    """An operation of arrays, `native` where that can be; its derivatives are those of `plain`."""
    operation = Primitive(f"cbam_{name}")
    operation.multiple_results = True

    def abstract(*arrays: Any, **options: Any) -> list[Any]:
        found = jax.eval_shape(functools.partial(native, **options), *arrays)
        return [jax.core.ShapedArray(one.shape, one.dtype) for one in found]

    def lower(context: mlir.LoweringRuleContext, *operands: Any, **options: Any) -> Any:
        is_exported = context.module_context.lowering_parameters.for_export
        run = mlir.lower_fun(plain if is_exported else native, multiple_results=True)
        return run(context, *operands, **options)

    def jvp(primals: Sequence[Array], tangents: Sequence[Any], **options: Any) -> Any:
        moved = tuple(map(ad.instantiate_zeros, tangents))
        found = jax.jvp(functools.partial(plain, **options), tuple(primals), moved)[1]
        return operation.bind(*primals, **options), found

    def batch(arrays: Sequence[Array], axes: Sequence[int | None], **options: Any) -> Any:
        pairs = list(zip(arrays, axes, strict=True))
        (size,) = {array.shape[axis] for array, axis in pairs if axis is not None}
        found = operation.bind(*(_merged(*pair, size) for pair in pairs), **options)
        split = [one.reshape(size, one.shape[0] // size, *one.shape[1:]) for one in found]
        return split, [0] * len(split)

    operation.def_impl(native)
    operation.def_abstract_eval(abstract)
    mlir.register_lowering(operation, mlir.lower_fun(plain, multiple_results=True))
    mlir.register_lowering(operation, lower, platform="cpu")
    ad.primitive_jvps[operation] = jvp
    batching.primitive_batchers[operation] = batch
    return operation


def _merged(array: Array, axis: int | None, size: int) -> Array:
    """One batch of all that vmap goes over."""
    if axis is None:
        array = jnp.broadcast_to(array, (size, *array.shape))
    else:
        array = jnp.moveaxis(array, axis, 0)
    return array.reshape(size * array.shape[1], *array.shape[2:])


def _tangent(name: str, plain: Callable[..., Any], gradient: Primitive, linear: int) -> Primitive:
    """An operation that is linear in its last arrays, of which `gradient` makes the gradients."""
    operation = _operation(name, plain, plain)

    def transpose(cotangents: Sequence[Any], *arrays: Any, **options: Any) -> list[Any]:
        known, moved = arrays[:-linear], arrays[-linear:]
        wanted = tuple(map(ad.is_undefined_primal, moved))
        upstream = [_nothing(known[0]) if isinstance(d, ad.Zero) else d for d in cotangents]
        found = gradient.bind(*known, *upstream, wanted=wanted, **options)
        return [None] * len(known) + [d if w else None for d, w in zip(found, wanted, strict=True)]

    ad.primitive_transposes[operation] = transpose
    return operation


_POOL = _operation("pool", _pool_native, _pool_plain)
_POOL_GRADIENT = _operation("pool_gradient", _pool_gradient_native, _pool_gradient_plain)
_POOL_TANGENT = _tangent("pool_tangent", _pool_tangent_plain, _POOL_GRADIENT, 2)
_SCALE = _operation("scale", _scale_native, _scale_plain)
_SCALE_GRADIENT = _operation("scale_gradient", _scale_gradient_native, _scale_gradient_plain)
_SCALE_TANGENT = _tangent("scale_tangent", _scale_tangent_plain, _SCALE_GRADIENT, 3)
