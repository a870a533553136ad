"""How the conformance test drives cbam_keras: arrays are NumPy and channels last."""

import keras
import numpy as np

import cbam_keras as package
from cbam_keras.evaluate import evaluate, prepare

__all__ = ["build", "call", "evaluate", "gate", "package"]

# Float64 has to be asked for on JAX.
prepare("cpu")


def build(name, *arguments, dtype="float32", **keywords):
    """An instance of the package's class `name` (or of its from_spec, for "CBAM.from_spec")."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, dtype=dtype, **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C)."""
    return np.array(keras.ops.convert_to_numpy(module(x, training=training)))


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    return np.array(keras.ops.convert_to_numpy(module.gate(x)))
