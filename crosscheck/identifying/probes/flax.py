"""Flax nnx modules. They are probed on a copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crosscheck.identifying.probes.calls import leaves, mode_arguments

# The usual layout of feature maps; the other one is tried after it.
CHANNELS_FIRST = False


@contextmanager
def borrow(module: nnx.Module) -> Iterator[nnx.Module]:
    with jax.default_matmul_precision("highest"):
        yield nnx.clone(module)


def modules(module: nnx.Module) -> list[nnx.Module]:
    return [part for _, part in nnx.iter_modules(module)]


def arrays(module: nnx.Module) -> dict[str, np.ndarray]:
    return {name: np.array(value.get_value()) for name, value in _variables(module).items()}


def assign(module: nnx.Module, arrays: Mapping[str, np.ndarray]) -> None:
    for name, variable in _variables(module).items():
        variable.set_value(jnp.asarray(arrays[name], variable.get_value().dtype))


def call(module: nnx.Module, x: np.ndarray, training: bool) -> list[np.ndarray]:
    return [np.asarray(y).astype(np.float64) for y in _outputs(module, _array(module, x), training)]


def gradient(module: nnx.Module, x: np.ndarray, index: int, cotangent: np.ndarray) -> np.ndarray:
    graph, state = nnx.split(module)

    def output(x: jax.Array) -> jax.Array:
        return _outputs(nnx.merge(graph, state), x, training=False)[index]

    y, pullback = jax.vjp(output, _array(module, x))
    return np.asarray(pullback(jnp.asarray(cotangent, y.dtype))[0]).astype(np.float64)


def _outputs(module: nnx.Module, x: jax.Array, training: bool) -> list[jax.Array]:
    module.train() if training else module.eval()
    return leaves(module(x, **mode_arguments(module.__call__, training)))


def _variables(module: nnx.Module) -> dict[str, nnx.Variable]:
    """Every floating-point variable by its path; that of a seed is none."""
    named = {}
    for path, value in nnx.iter_graph(module):
        if isinstance(value, nnx.Variable) and jnp.issubdtype(
            value.get_value().dtype, jnp.floating
        ):
            named["/".join(map(str, path))] = value
    return named


def _array(module: nnx.Module, x: np.ndarray) -> jax.Array:
    dtypes = [value.get_value().dtype for value in _variables(module).values()]
    return jnp.asarray(x, dtypes[0] if dtypes else jnp.float32)
