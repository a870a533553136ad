"""The native kernels within JAX: when they run, and what its transformations make of them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

import cbam_flax
from cbam_flax import native, ops

jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.compiler


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 5, 6)))


@functools.cache
def block(kernels=True):
    """A function of its weights and x, and the weights."""
    built = cbam_flax.CBAM(
        6, reduction=2, kernel_size=3, kernels=kernels, param_dtype="float64", rngs=nnx.Rngs(0)
    )
    graph, weights = nnx.split(built)
    return (lambda weights, x: nnx.merge(graph, weights)(x)), weights


def gradients(function, weights, x):
    """y, and the gradients of the weights and of x."""
    y, pullback = jax.vjp(function, weights, x)
    return [y, *jax.tree.leaves(pullback(2 * y))]


def assert_close(found, right):
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def calls(text):
    return text.count("custom_call @cbam_")


# ---------------------------------------------------------------------------------- which path runs


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("space", [(7,), (4, 5), (2, 3, 4)])
def test_they_run_on_maps_of_any_rank(dtype, space):
    assert ops.path(jnp.ones((2, *space, 6), dtype)) == "native"


@pytest.mark.parametrize(
    ("x", "path"),
    [
        (jnp.ones((2, 4, 5, 6), "float16"), "composition"),
        (jnp.ones((0, 4, 5, 6), "float32"), "fused"),
        (jnp.ones((0, 4, 5, 6), "float64"), "composition"),
    ],
    ids=["float16", "empty", "empty float64"],
)
def test_plain_operations_run_on_what_they_do_not_know(x, path):
    assert ops.path(x) == path
    assert cbam_flax.CBAM(6, reduction=2, rngs=nnx.Rngs(0))(x).shape == x.shape


def test_several_devices_and_meshes_are_left_to_plain_operations(monkeypatch, x):
    with jax.set_mesh(jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))):
        assert ops.path(x) == "composition"
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert ops.path(x) == "composition"
    assert ops.path(x.astype("float32")) == "fused"
    assert ops.path(x.astype("bfloat16")) == "composition"


def test_a_jax_that_does_not_take_them_is_told_once(monkeypatch, x):
    def refuse(*_, **__):
        raise RuntimeError("another version")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    native._are_registered.cache_clear()
    try:
        with pytest.warns(UserWarning, match="does not take its kernels \\(another version\\)"):
            assert ops.path(x) == "composition"
    finally:
        native._are_registered.cache_clear()


def test_a_call_of_another_shape_than_the_kernels_know_is_an_error(x):
    assert native.knows(x)
    shape = jax.ShapeDtypeStruct((3, 6), x.dtype)
    with pytest.raises(jax.errors.JaxRuntimeError, match="do not know this version of XLA"):
        jax.ffi.ffi_call("cbam_pool_rows", [shape])(x)[0].block_until_ready()


# ---------------------------------------------------------------------------------- what runs on it


def test_a_compiled_step_calls_each_once(x):
    function, weights = block()
    step = jax.jit(functools.partial(gradients, function))
    assert calls(step.lower(weights, x).as_text()) == 6
    assert_close(step(weights, x), gradients(*block(kernels=False), x))


def test_exported_programs_have_none(x):
    function = functools.partial(*block())
    exported = jax.export.export(jax.jit(function))(x)
    loaded = jax.export.deserialize(exported.serialize(vjp_order=1))
    assert not calls(loaded.mlir_module() + loaded.vjp().mlir_module())
    assert_close([loaded.call(x)], [function(x)])


def test_maps_of_any_batch_can_be_exported(x):
    function, weights = block()
    shape = jax.export.symbolic_shape("n, 4, 5, 6")
    any_batch = jax.ShapeDtypeStruct(shape, x.dtype)
    exported = jax.export.export(jax.jit(function))(weights, any_batch)
    assert_close([exported.call(weights, x)], [function(weights, x)])


@pytest.mark.parametrize(("outer", "inner"), [(jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacfwd)])
def test_second_derivatives_in_any_mode(outer, inner, x):
    def second(function, weights):
        return outer(inner(lambda x: function(weights, x).sum()))(x[:1, :2, :2])

    assert_close([second(*block())], [second(*block(kernels=False))])


@pytest.mark.parametrize("over", [jax.vmap, lambda one: functools.partial(jax.lax.map, one)])
def test_maps_are_mapped_and_looped_over(over, x):
    one = functools.partial(gradients, *block())
    batch = jnp.stack([x, x + 1])
    right = [jnp.stack(pair) for pair in zip(one(batch[0]), one(batch[1]), strict=True)]
    assert_close(over(one)(batch), right)


def test_weights_are_mapped_over(x):
    function, weights = block()
    several = jax.tree.map(lambda w: jnp.stack([w, 2 * w]), weights)
    found = jax.vmap(functools.partial(gradients, function), (0, None))(several, x)
    right = gradients(function, jax.tree.map(lambda w: 2 * w, weights), x)
    assert_close([one[1] for one in found], right)


def test_checkpointing_computes_the_same(x):
    function, weights = block()
    again = gradients(jax.checkpoint(function), weights, x)
    assert_close(again, gradients(function, weights, x))


def test_they_run_where_nothing_is_compiled(x):
    right = gradients(*block(kernels=False), x)
    with jax.disable_jit():
        assert_close(gradients(*block(), x), right)


def test_a_mesh_computes_the_same(x):
    function, weights = block()
    right = gradients(function, weights, x)
    spec = PartitionSpec("devices")
    with jax.set_mesh(jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))):
        step = jax.jit(functools.partial(gradients, function))
        assert_close(step(weights, jax.device_put(x, spec)), right)


def test_shards_compute_the_same(x):
    function, weights = block()
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("devices")
    mapped = jax.shard_map(
        functools.partial(function, weights), mesh=mesh, in_specs=spec, out_specs=spec
    )
    assert_close([mapped(x)], [function(weights, x)])
    assert_close(
        [jax.pmap(functools.partial(function, weights))(x[None])[0]], [function(weights, x)]
    )


def test_frozen_weights_leave_the_gradient_of_x(x):
    def gradient(function, weights):
        return jax.grad(lambda x: function(weights, x).sum())(x)

    assert_close([gradient(*block())], [gradient(*block(kernels=False))])


def test_an_input_without_gradient_leaves_those_of_the_weights(x):
    def gradient(function, weights):
        return jax.tree.leaves(jax.grad(lambda weights: function(weights, x).sum())(weights))

    assert_close(gradient(*block()), gradient(*block(kernels=False)))


def test_a_gradient_that_somebody_else_holds_is_not_changed(x):
    d_y, small = jnp.ones_like(x), jnp.ones((3, 6))
    _, pullback = jax.vjp(lambda x: ops.pool_space(x, ops.AVG_MAX), x)
    (d_x,) = pullback((d_y, [small, 0 * small]))
    assert_close([d_y, d_x], [jnp.ones_like(x), jnp.full_like(x, 1 + 1 / 20)])


def test_the_bits_are_those_of_any_number_of_threads_and_of_every_run():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 40, 40, 64)), "float32")
    graph, weights = nnx.split(cbam_flax.CBAM(64, rngs=nnx.Rngs(0)))
    step = jax.jit(functools.partial(gradients, lambda w, x: nnx.merge(graph, w)(x)))
    first, *others = ([one.tobytes() for one in step(weights, x)] for _ in range(5))
    assert all(other == first for other in others)
