"""Keras 3 layers and models on any backend. Their variables are given back as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from crosscheck.identifying.probes.calls import leaves

# The usual layout of feature maps; the other one is tried after it.
CHANNELS_FIRST = False


@contextmanager
def borrow(module: keras.Layer) -> Iterator[keras.Layer]:
    before = [(variable, keras.ops.copy(variable.value)) for variable in module.variables]
    try:
        yield module
    finally:
        for variable, value in before:
            variable.assign(value)


def modules(module: keras.Layer) -> list[keras.Layer]:
    return list(module._flatten_layers())


def arrays(module: keras.Layer) -> dict[str, np.ndarray]:
    return {name: _numpy(variable) for name, variable in _variables(module).items()}


def assign(module: keras.Layer, arrays: Mapping[str, np.ndarray]) -> None:
    for name, variable in _variables(module).items():
        variable.assign(keras.ops.convert_to_tensor(arrays[name], variable.dtype))


def call(module: keras.Layer, x: np.ndarray, training: bool) -> list[np.ndarray]:
    returned = leaves(module(_tensor(module, x), training=training))
    return [_numpy(y).astype(np.float64) for y in returned]


def gradient(module: keras.Layer, x: np.ndarray, index: int, cotangent: np.ndarray) -> np.ndarray:
    leaf = _tensor(module, x)

    def output(x: Any) -> Any:
        return leaves(module(x, training=False))[index]

    dx = _GRADIENTS[keras.config.backend()](output, leaf, cotangent)
    return _numpy(dx).astype(np.float64)


def _tensorflow_gradient(output: Any, x: Any, cotangent: np.ndarray) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = output(x)
    return tape.gradient(y, x, tf.cast(cotangent, y.dtype), tf.UnconnectedGradients.ZERO)


def _jax_gradient(output: Any, x: Any, cotangent: np.ndarray) -> Any:
    import jax

    y, pullback = jax.vjp(output, x)
    return pullback(cotangent.astype(y.dtype))[0]


def _torch_gradient(output: Any, x: Any, cotangent: np.ndarray) -> Any:
    import torch

    leaf = x.detach().requires_grad_()
    y = output(leaf)
    dy = torch.as_tensor(cotangent.copy(), dtype=y.dtype, device=y.device)
    return torch.autograd.grad(y, leaf, dy, materialize_grads=True)[0]


_GRADIENTS = {
    "tensorflow": _tensorflow_gradient,
    "jax": _jax_gradient,
    "torch": _torch_gradient,
}


def _variables(module: keras.Layer) -> dict[str, Any]:
    """By their paths, with a number where several have the same."""
    named: dict[str, Any] = {}
    for variable in module.variables:
        if "float" in variable.dtype:
            path = variable.path
            named[f"{path}#{len(named)}" if path in named else path] = variable
    return named


def _tensor(module: keras.Layer, x: np.ndarray) -> Any:
    return keras.ops.convert_to_tensor(x, module.compute_dtype)


def _numpy(value: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(value))
