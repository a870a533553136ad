"""How the conformance test drives cbam_flax: arrays are NumPy, channels-last."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx, serialization

import cbam_flax as package
from cbam_flax.evaluate import evaluate

__all__ = ["LOADS", "build", "call", "evaluate", "gate", "package", "save"]

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


def save(module, folder):
    """The files in which its users save a module."""
    state = nnx.state(module)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.save(folder / "dict", nnx.to_pure_dict(state))
    data = serialization.to_bytes(nnx.to_pure_dict(state))
    (folder / "dict.msgpack").write_bytes(data)
    return sorted(folder.iterdir())


def _restored(path):
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path)


def _load(module, path):
    package.load_canonical(module, _restored(path))


def _load_state(module, path):
    state = nnx.state(module)
    nnx.replace_by_pure_dict(state, _restored(path))
    nnx.update(module, state)


# Ending, dialect, and how its users load such a file into a module.
LOADS = [(".orbax", None, _load), (".orbax", "nested", _load_state)]
