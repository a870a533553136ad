"""How the conformance test drives cbam_flax: arrays are NumPy, channels-last."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import cbam_flax as package
from cbam_flax.evaluate import evaluate

__all__ = ["build", "call", "evaluate", "gate", "package"]

jax.config.update("jax_enable_x64", True)


def build(name, *arguments, dtype="float32", **keywords):
    """An instance of the package's class `name` (or of its from_spec, for "CBAM.from_spec")."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, param_dtype=dtype, rngs=nnx.Rngs(0), **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C)."""
    module.train() if training else module.eval()
    return np.asarray(module(jnp.asarray(x)))


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    module.eval()
    return np.asarray(module.gate(jnp.asarray(x)))
