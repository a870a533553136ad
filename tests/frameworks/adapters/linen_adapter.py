"""How the conformance test drives cbam_flax.linen: arrays are NumPy, channels-last.

A linen module does not hold its variables, and the conformance test's blocks do; so a block here
is a module and its variables.
"""

import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization

import cbam_flax.linen as linen
from cbam_flax.linen.evaluate import evaluate

__all__ = ["LOADS", "build", "call", "evaluate", "gate", "package", "save"]

jax.config.update("jax_enable_x64", True)


class Block:
    """A module with the variables that it would be applied to."""

    def __init__(self, module):
        self.module, self.spec = module, module.spec
        x = jnp.zeros((1, *[3] * module.rank, module.channels))
        self.variables = module.init(jax.random.key(0), x)

    def __repr__(self):
        return repr(self.module)

    @property
    def pair(self):
        """As a function takes it that knows linen modules alone."""
        return self.module, self.variables

    def apply(self, x, training=False, **options):
        """The module applied to x, its statistics updated."""
        if "use_running_average" in inspect.signature(type(self.module)).parameters:
            options["use_running_average"] = not training
        y, updated = self.module.apply(
            self.variables, jnp.asarray(x), mutable=["batch_stats"], **options
        )
        self.variables = {**self.variables, **updated}
        return np.asarray(y)


def to_canonical(block):
    return linen.to_canonical(*_parts(block))


def load_canonical(block, weights):
    module, _ = _parts(block)
    block.variables = linen.load_canonical(module, weights)


def _parts(block):
    """Module and variables; what is no block has to arrive at the package as it is."""
    return (block.module, block.variables) if isinstance(block, Block) else (block, {})


package = SimpleNamespace(
    __name__=linen.__name__, to_canonical=to_canonical, load_canonical=load_canonical
)


def build(name, *arguments, dtype="float32", **keywords):
    """A block of the package's class `name` (or of its from_spec, for "CBAM.from_spec")."""
    constructor = linen
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return Block(constructor(*arguments, param_dtype=dtype, **keywords))


def call(block, x, training=False):
    """The block applied to x (N, *S, C)."""
    return block.apply(x, training)


def gate(block, x):
    """The block's gate for x (N, *S, C)."""
    return block.apply(x, method="gate_of")


def save(block, folder):
    """The files in which its users save variables."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "variables", block.variables)
    (folder / "variables.msgpack").write_bytes(serialization.to_bytes(block.variables))
    return sorted(folder.iterdir())


def _load(block, path):
    with ocp.StandardCheckpointer() as checkpointer:
        load_canonical(block, checkpointer.restore(path))


# Ending, dialect, and how its users load such a file into a block.
LOADS = [(".orbax", None, _load)]
