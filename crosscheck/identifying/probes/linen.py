"""Flax linen modules with their variables: `module.bind(variables)`, or the pair of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from flax.traverse_util import flatten_dict, unflatten_dict

from crosscheck.identifying.probes.calls import leaves, mode_arguments

# The usual layout of feature maps; the other one is tried after it.
CHANNELS_FIRST = False


@dataclass
class Applied:
    """A module and the variables that it is applied to, flat; none before it was ever called."""

    module: linen.Module
    variables: dict[str, Any]


@contextmanager
def borrow(module: linen.Module | tuple[linen.Module, Mapping[str, Any]]) -> Iterator[Applied]:
    variables: Mapping[str, Any] = {}
    if isinstance(module, tuple):
        module, variables = module
    elif module.scope is not None:
        module, variables = module.unbind()
    with jax.default_matmul_precision("highest"):
        yield Applied(module, flatten_dict(variables, sep="/"))


def modules(module: Applied) -> list[linen.Module]:
    return [module.module]


def arrays(module: Applied) -> dict[str, np.ndarray]:
    return {name: np.array(module.variables[name]) for name in _names(module)}


def assign(module: Applied, arrays: Mapping[str, np.ndarray]) -> None:
    for name in _names(module):
        module.variables[name] = jnp.asarray(arrays[name], module.variables[name].dtype)


def call(module: Applied, x: np.ndarray, training: bool) -> list[np.ndarray]:
    if not module.variables:
        mode: dict[str, Any] = mode_arguments(module.module.__call__, training)
        initial = module.module.init(jax.random.key(0), _array(module, x), **mode)
        module.variables = flatten_dict(initial, sep="/")
    return [np.asarray(y).astype(np.float64) for y in _outputs(module, _array(module, x), training)]


def gradient(module: Applied, x: np.ndarray, index: int, cotangent: np.ndarray) -> np.ndarray:
    def output(x: jax.Array) -> jax.Array:
        return _outputs(module, x, training=False)[index]

    y, pullback = jax.vjp(output, _array(module, x))
    return np.asarray(pullback(jnp.asarray(cotangent, y.dtype))[0]).astype(np.float64)


def _outputs(module: Applied, x: jax.Array, training: bool) -> list[jax.Array]:
    mode: dict[str, Any] = mode_arguments(module.module.__call__, training)
    variables = unflatten_dict(module.variables, sep="/")
    if not training:
        return leaves(module.module.apply(variables, x, **mode))
    returned, updated = module.module.apply(
        variables, x, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}, **mode
    )
    module.variables = {**module.variables, **flatten_dict(updated, sep="/")}
    return leaves(returned)


def _names(module: Applied) -> list[str]:
    variables = module.variables.items()
    return [name for name, value in variables if jnp.issubdtype(value.dtype, jnp.floating)]


def _array(module: Applied, x: np.ndarray) -> jax.Array:
    dtypes = [module.variables[name].dtype for name in _names(module)]
    return jnp.asarray(x, dtypes[0] if dtypes else jnp.float32)
