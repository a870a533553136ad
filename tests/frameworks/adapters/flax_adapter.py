"""How the conformance tests drive cbam_flax: arrays are NumPy, channels-last."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx, serialization

import cbam_flax as package
from cbam_core.costs import is_statistic
from cbam_core.slots import OPTAX as CONVENTION
from cbam_flax import train
from cbam_flax.evaluate import evaluate

__all__ = [
    "CONVENTION", "LOADS", "RUNS", "build", "call", "differentiate", "evaluate", "gate", "package",
    "save", "save_run", "train",
]  # fmt: skip

jax.config.update("jax_enable_x64", True)
# A generator that XLA compiles ten times faster than the default one.
KEY = jax.random.key(0, impl="rbg")


def build(name, *arguments, dtype="float32", **keywords):
    """What the package's `name` makes: a class, "CBAM.from_spec" or a network's factory."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, param_dtype=dtype, rngs=nnx.Rngs(KEY), **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C); a list of arrays where the module gives several maps."""
    module.train() if training else module.eval()
    return jax.tree.map(np.asarray, module(jnp.asarray(x)))


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


def differentiate(network, x, cotangent, training=False):
    """What `evaluate` returns of a block, of a network that is there: the arrays alone."""
    network.train() if training else network.eval()
    graph, *states = nnx.split(network, nnx.Param, ...)
    y, gradients, dx, after = _step(graph, *states, jnp.asarray(x), jnp.asarray(cotangent))
    arrays = {"output": np.asarray(y), "grad:input": np.asarray(dx)}
    # The gradients in place of the parameters, and the statistics after the pass.
    for name, array in package.to_canonical(nnx.merge(graph, gradients, after)).items():
        arrays[f"{'state' if is_statistic(name) else 'grad'}:{name}"] = array
    return arrays


@functools.partial(jax.jit, static_argnames="graph")
def _step(graph, params, others, x, cotangent):
    def run(params, x):
        network = nnx.merge(graph, params, others, copy=True)
        return network(x), nnx.state(network, nnx.Not(nnx.Param))

    y, pullback, after = jax.vjp(run, params, x, has_aux=True)
    return y, *pullback(cotangent), after


def save_run(trainer, folder):
    """The files in which its users save a run, and what else has to be said of each."""
    run = {name: nnx.to_pure_dict(state) for name, state in _states(trainer).items()}
    run |= run.pop("optimizer")
    (folder / "run.msgpack").write_bytes(serialization.to_bytes(run))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "run", run)
    described = {"architecture": trainer.network.architecture.to_dict()}
    said = described | trainer.recipe.to_dict()
    return {folder / "run.msgpack": said, folder / "run": said}


def _states(trainer):
    return {
        "params": nnx.state(trainer.network, nnx.Param),
        "batch_stats": nnx.state(trainer.network, nnx.BatchStat),
        "optimizer": nnx.state(trainer.optimizer),
    }


def _load_run(trainer, run):
    states = _states(trainer)
    own = {name: run[name] for name in ("params", "batch_stats")}
    own["optimizer"] = {name: run[name] for name in ("opt_state", "step")}
    for name, state in states.items():
        nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, own[name]))
        nnx.update(trainer.optimizer if name == "optimizer" else trainer.network, state)


# Ending, and how its users go on with a run from such a file.
RUNS = [
    (
        ".msgpack",
        lambda trainer, path: _load_run(trainer, serialization.msgpack_restore(path.read_bytes())),
    ),
    (".orbax", lambda trainer, path: _load_run(trainer, _restored(path))),
]
