"""The primitives by themselves, by native kernels and fused, against their composition."""

from __future__ import annotations

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

import cbam_flax
from cbam_flax import layers, native, ops
from tests.compare import assert_equal
from tests.frameworks.adapters import flax_adapter

SIZES = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}
LIMITS = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 2.0**-6}
AVG_MAX = ("avg", "max")
PATHS = (pytest.param("native", marks=pytest.mark.compiler), "fused")


@pytest.fixture(autouse=True)
def are_registered():
    native.knows(jnp.ones((1, 2, 3)))


def maps(rank, kind, dtype):
    """x (3, *S, 8), Mc and Ms."""
    rng = np.random.default_rng(0)
    shape = (3, *SIZES[rank], 8)
    x = rng.standard_normal(shape) if kind == "normal" else rng.integers(-3, 3, shape)
    x = np.maximum(x, 0 if kind == "relu" else -np.inf)
    corner = (0,) * (rank + 2)
    if kind in ("inf", "-inf", "nan"):
        x[corner] = float(kind)
    wide = "float64" if dtype == "float64" else "float32"
    channel = jnp.asarray(rng.uniform(0.1, 1, (3, *[1] * rank, 8)), wide)
    spatial = jnp.asarray(rng.uniform(0.1, 1, (*shape[:-1], 1)), wide)
    return jnp.asarray(x, dtype), channel, spatial


def primitives(path):
    """Name -> a function of x, Mc and Ms, on a path whatever x is."""

    def on_path(function):
        def run(x, channel, spatial):
            with mock.patch.object(ops, "path", return_value=path):
                return function(x, channel, spatial)

        return run

    found = {
        "pool_space": lambda x, mc, ms: ops.pool_space(x, AVG_MAX),
        "pool_space of Ms * x": lambda x, mc, ms: ops.pool_space(x, AVG_MAX, ms),
        "pool_channels": lambda x, mc, ms: ops.pool_channels(x),
        "pool_channels of Mc * x": lambda x, mc, ms: ops.pool_channels(x, mc),
    }
    for residual in (False, True):
        scale = functools.partial(ops.scale, residual=residual)
        found |= {
            f"scale {residual}": lambda x, mc, ms, scale=scale: scale(x, mc, ms),
            f"scale Mc {residual}": lambda x, mc, ms, scale=scale: scale(x, mc),
            f"scale Ms {residual}": lambda x, mc, ms, scale=scale: scale(x, spatial=ms),
        }
    return {name: on_path(function) for name, function in found.items()}


NAMES = tuple(primitives("composition"))


def passes(function, *arrays):
    """What it makes of x, Mc and Ms, backward with drawn cotangents, and forward with tangents."""
    rng = np.random.default_rng(1)

    def drawn(like):
        return jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape), a.dtype), like)

    @jax.jit
    def run(arrays, tangents, cotangents):
        y, pullback = jax.vjp(function, *arrays)
        return y, pullback(cotangents), jax.jvp(function, arrays, tangents)[1]

    found = run(arrays, drawn(arrays), drawn(jax.eval_shape(function, *arrays)))
    return {
        jax.tree_util.keystr(path): np.asarray(array, np.float64)
        for path, array in jax.tree_util.tree_leaves_with_path(found)
    }


@functools.cache
def of_the_composition(name, rank, kind, dtype):
    return passes(primitives("composition")[name], *maps(rank, kind, dtype))


@pytest.mark.parametrize(
    ("rank", "kind", "dtype"),
    [
        *[(2, kind, "float64") for kind in ("normal", "relu", "integers", "inf", "-inf")],
        *[(2, "relu", dtype) for dtype in ("float32", "bfloat16")],
        *[(rank, "integers", "float64") for rank in (1, 3)],
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_derivatives_are_those_of_the_composition(path, rank, kind, dtype):
    arrays = maps(rank, kind, dtype)
    for name, function in primitives(path).items():
        expected, found = of_the_composition(name, rank, kind, dtype), passes(function, *arrays)
        for key, array in found.items():
            if kind == "-inf" and key.startswith("[2]"):
                continue  # Forward mode multiplies it by the weight 0.
            finite = np.isfinite(expected[key])
            assert (np.isfinite(array) == finite).all(), (name, key)
            assert_equal(
                {key: np.where(finite, array, 0)},
                {key: np.where(finite, expected[key], 0)},
                LIMITS[dtype],
            )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
def test_higher_derivatives_equal_differences(name, path):
    check_grads(primitives(path)[name], maps(2, "normal", "float64"), 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_a_further_axis_equals_a_loop(name, path):
    function = primitives(path)[name]

    def gradient(*arrays):
        y, pullback = jax.vjp(function, *arrays)
        return pullback(y)

    batch = [maps(2, kind, "float64") for kind in ("normal", "relu", "integers")]
    found = jax.vmap(gradient)(*map(jnp.stack, zip(*batch, strict=True)))
    right = map(jnp.stack, zip(*(gradient(*arrays) for arrays in batch), strict=True))
    for array, expected in zip(found, right, strict=True):
        assert_equal({"": np.asarray(array)}, {"": np.asarray(expected)}, 1e-13)


@pytest.mark.parametrize("path", PATHS)
def test_the_gradient_at_a_maximum_of_nan_is_nan(path):
    x, channel, spatial = maps(2, "nan", "float32")
    for name, function in primitives(path).items():
        _, pullback = jax.vjp(function, x, channel, spatial)
        ones = jax.tree.map(jnp.ones_like, jax.eval_shape(function, x, channel, spatial))
        assert np.isnan(pullback(ones)[0][0, 0, 0, 0]) == name.startswith("pool"), name


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """What blocks run on."""
    if request.param == "fused":
        monkeypatch.setattr(native, "knows", lambda *_: False)
    assert ops.path(jnp.ones((1, 2, 3), "float32")) == request.param


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel"])
def test_a_gradient_finds_a_maximum_of_what_is_computed_in_the_same_program(order, dtype):
    """XLA may compute a normalised map anew for each use, with fused multiply-adds or without."""
    rng = np.random.default_rng(0)
    x, other, dy = (jnp.asarray(rng.standard_normal((4, 9, 10, 64)), dtype) for _ in range(3))

    def normalize(x):
        centred, _, var = layers.moments(x)
        return layers.normalize(centred, var, 1.3, 0.1, 1e-5)

    def gradient(x, other, kernels):
        options = {"order": order, "kernels": kernels, "param_dtype": dtype}
        block = cbam_flax.CBAM(64, **options, rngs=nnx.Rngs(0))
        run = jax.vjp(lambda x, other: block(normalize(x)) + normalize(other), x, other)[1]
        return run(dy)

    found = _compiled(functools.partial(gradient, kernels=True), x, other)(x, other)
    right = gradient(x, other, False)
    assert_equal({"": np.asarray(found[0])}, {"": np.asarray(right[0])}, 4e-6)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel"])
def test_xla_stores_nothing_as_large_as_x(order):
    block = flax_adapter.build("CBAM", 256, hidden=1, order=order)
    x = jnp.ones((4, 16, 16, 256), jnp.float32)

    def gradients(block, x, dy):
        return jax.vjp(lambda block, x: block(x), block, x)[1](dy)

    program = _compiled(gradients, block, x, x)
    assert program.memory_analysis().temp_size_in_bytes < 0.25 * x.nbytes


def _compiled(function, *arguments):
    """As users compile it; see tests/conftest.py."""
    options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)
