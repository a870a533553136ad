"""tf modules, and layers and models of Keras 2. Their variables are given back as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from crosscheck.identifying.probes.calls import leaves, mode_arguments

# The usual layout of feature maps; the other one is tried after it.
CHANNELS_FIRST = False


@contextmanager
def borrow(module: tf.Module) -> Iterator[tf.Module]:
    before = [(variable, variable.numpy()) for variable in module.variables]
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield module
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        for variable, value in before:
            variable.assign(value)


def modules(module: tf.Module) -> list[tf.Module]:
    return [module, *module.submodules]


def arrays(module: tf.Module) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in _variables(module).items()}


def assign(module: tf.Module, arrays: Mapping[str, np.ndarray]) -> None:
    for name, variable in _variables(module).items():
        variable.assign(tf.cast(arrays[name], variable.dtype))


def call(module: Any, x: np.ndarray, training: bool) -> list[np.ndarray]:
    outputs = leaves(module(_tensor(module, x), **_mode(module, training)))
    return [np.asarray(y).astype(np.float64) for y in outputs if tf.is_tensor(y)]


def gradient(module: Any, x: np.ndarray, index: int, cotangent: np.ndarray) -> np.ndarray:
    leaf = _tensor(module, x)
    with tf.GradientTape() as tape:
        tape.watch(leaf)
        outputs = leaves(module(leaf, **_mode(module, training=False)))
        y = [y for y in outputs if tf.is_tensor(y)][index]
    zero = tf.UnconnectedGradients.ZERO
    return tape.gradient(y, leaf, tf.cast(cotangent, y.dtype), zero).numpy().astype(np.float64)


def _mode(module: Any, training: bool) -> dict[str, bool]:
    return mode_arguments(getattr(module, "call", module.__call__), training)


def _variables(module: tf.Module) -> dict[str, tf.Variable]:
    """By their names, with a number where several have the same."""
    named: dict[str, tf.Variable] = {}
    for variable in module.variables:
        name = variable.name.removesuffix(":0")
        if variable.dtype.is_floating:
            named[f"{name}#{len(named)}" if name in named else name] = variable
    return named


def _tensor(module: Any, x: np.ndarray) -> tf.Tensor:
    dtypes = [variable.dtype for variable in _variables(module).values()]
    return tf.cast(x, dtypes[0] if dtypes else tf.float32)
