"""How the conformance test drives cbam_keras: arrays are NumPy and channels last."""

import keras
import numpy as np

import cbam_keras as package
from cbam_keras.evaluate import differentiate as _differentiate
from cbam_keras.evaluate import evaluate, prepare

__all__ = ["build", "call", "differentiate", "evaluate", "gate", "package"]

# Float64 has to be asked for on JAX.
prepare("cpu")


def build(name, *arguments, dtype="float32", **keywords):
    """What the package's `name` makes: a class, "CBAM.from_spec" or a network's factory."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, dtype=dtype, **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C); a list of arrays where the module gives several maps."""
    y = module(x, training=training)
    return [_numpy(part) for part in y] if isinstance(y, list) else _numpy(y)


def differentiate(network, x, cotangent, training=False):
    """What `evaluate` returns of a block, of a network that is there: the arrays alone."""
    return _differentiate(network, x, cotangent, training=training)[0]


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    return _numpy(module.gate(x))


def _numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))
