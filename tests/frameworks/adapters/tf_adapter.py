"""How the conformance test drives cbam_tf: arrays are NumPy, in canonical layout."""

import tensorflow as tf

import cbam_tf as package
from cbam_tf.evaluate import evaluate

__all__ = ["build", "call", "evaluate", "gate", "package"]


def build(name, *arguments, dtype="float32", **keywords):
    """An instance of the package's class `name` (or of its from_spec, for "CBAM.from_spec")."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, dtype=getattr(tf, dtype), **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C)."""
    return module(tf.constant(x), training=training).numpy()


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    return module.gate(tf.constant(x)).numpy()
