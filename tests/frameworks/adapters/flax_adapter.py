"""How the conformance tests drive cbam_flax: arrays are NumPy, channels-last."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx, serialization
from flax.training.dynamic_scale import DynamicScale

import cbam_flax as package
from cbam_core.costs import is_statistic
from cbam_core.slots import OPTAX as CONVENTION
from cbam_flax import ops, train
from cbam_flax.evaluate import evaluate

__all__ = [
    "CONVENTION", "LOADS", "PLACE", "RUNS", "Mixed", "around", "build", "call", "differentiate",
    "evaluate", "explain", "gate", "insert", "kept", "package", "path", "save", "save_run",
    "surface", "train", "train_from_seed",
]  # fmt: skip

jax.config.update("jax_enable_x64", True)
# A generator that XLA compiles ten times faster than the default one.
KEY = jax.random.key(0, impl="rbg")


def build(name, *arguments, dtype="float32", **keywords):
    """What the package's `name` makes: a class, "CBAM.from_spec" or a network's factory.

    Unless values are asked for, all are 0.
    """
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)

    def make():
        return constructor(*arguments, param_dtype=dtype, rngs=nnx.Rngs(KEY), **keywords)

    if {"weights", "init"} & keywords.keys():
        return make()
    # The shapes alone, which compiles nothing.
    module = nnx.eval_shape(make)
    shapes = nnx.state(module, (nnx.Param, nnx.BatchStat))
    nnx.update(module, jax.tree.map(lambda a: jnp.asarray(np.zeros(a.shape, a.dtype)), shapes))
    nnx.reseed(module, default=KEY)
    return module


def call(module, x, training=False):
    """module(x) for x (N, *S, C); a list of arrays where the module gives several maps."""
    module.train() if training else module.eval()
    # Of a network one program, which takes XLA a fifth of the time that its operations take.
    run = _forward if isinstance(module, package.Backbone) else _forward.__wrapped__
    return jax.tree.map(np.asarray, run(module, jnp.asarray(x)))


@nnx.jit
def _forward(module, x):
    return module(x)


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    module.eval()
    return np.asarray(module.gate(jnp.asarray(x)))


def explain(module, x, asked, compiled=False):
    """The attention maps for x (N, *S, C), and the Grad-CAM of each (target, at) that is asked."""

    def run(module, x):
        cams = [package.grad_cam(module, x, *one) for one in asked]
        return package.attention_maps(module, x), cams

    # Of a network one program, which takes XLA a fifth of the time that its operations take.
    is_compiled = compiled or isinstance(module, package.Backbone)
    maps, cams = (nnx.jit(run) if is_compiled else run)(module, jnp.asarray(x))
    return {name: np.asarray(gate) for name, gate in maps.items()}, [np.asarray(c) for c in cams]


def around(block):
    """A model that passes its input to the block `inner` by its name."""

    class Around(nnx.Module):
        def __init__(self):
            self.inner = block

        def __call__(self, x):
            return self.inner(x=x)

    return Around()


# The last norm of a network of one block, and the CBAM that `insert` puts behind it.
PLACE = ("stage1.block0.norm2", "stage1.block0.norm2.cbam")


def insert(network, where, spec, x, **options):
    """The network with a CBAM behind each module that is meant."""
    options |= {"param_dtype": x.dtype}
    return package.insert_cbam(network, where, spec, example=jnp.asarray(x), **options)


def surface(network):
    """What of its modules a function that looks on may leave changed, beside weights."""
    return nnx.graphdef(network)


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


def path(x):
    """What the primitives run on for x (N, *S, C)."""
    return ops.path(jnp.asarray(x))


def kept(module, x):
    """The shapes of the arrays that a pass over x keeps for the backward pass, weights included."""
    module.eval()
    graph, *states = nnx.split(module, nnx.Param, ...)
    _, pullback = jax.vjp(lambda params, x: nnx.merge(graph, params, *states[1:])(x), states[0], x)
    return {id(array): array.shape for array in jax.tree.leaves(pullback)}.values()


class Mixed:
    """A module with float32 parameters and a half-precision dtype, float16 with a DynamicScale."""

    def __init__(self, name, *arguments, dtype, weights):
        constructor = functools.reduce(getattr, name.split("."), package)
        options = {"dtype": dtype, "param_dtype": jnp.float32, "rngs": nnx.Rngs(KEY)}
        self.module = constructor(*arguments, **options)
        package.load_canonical(self.module, weights)
        self.optimizer = nnx.Optimizer(self.module, optax.sgd(0.01), wrt=nnx.Param)
        self.scale = DynamicScale() if dtype == "float16" else DynamicScale(scale=1.0)

    def call(self, x, training=False):
        """The output for x (N, *S, C), as float32."""
        self.module.train() if training else self.module.eval()
        y = nnx.jit(lambda module, x: module(x))(self.module, jnp.asarray(x, jnp.float32))
        return np.asarray(y, np.float32)

    def step(self, x, target):
        """A step by the mean squared error."""
        self.module.train()
        x, target = jnp.asarray(x, jnp.float32), jnp.asarray(target, jnp.float32)
        self.scale = _mixed_step(self.module, self.optimizer, self.scale, x, target)

    def weights(self):
        return package.to_canonical(self.module)

    def kinds(self):
        """The dtypes of weights and statistics."""
        return {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(self.module))}


@nnx.jit
def _mixed_step(module, optimizer, scale, x, target):
    graph, params, others = nnx.split(module, nnx.Param, ...)

    def loss_of(params):
        merged = nnx.merge(graph, params, others, copy=True)
        loss = jnp.mean((merged(x).astype(jnp.float32) - target) ** 2)
        return loss, nnx.state(merged, nnx.Not(nnx.Param))

    scale, is_finite, (_, others), gradients = scale.value_and_grad(loss_of, has_aux=True)(params)
    nnx.update(module, others)
    # Of a gradient that is not finite nothing is left.
    optimizer.update(module, jax.tree.map(lambda g: jnp.where(is_finite, g, 0), gradients))
    return scale


def train_from_seed(architecture, seed, x, labels, steps):
    """The weights of a new network after steps of SGD, by a seed alone; for a fresh process."""
    options = {"param_dtype": x.dtype, "rngs": nnx.Rngs(seed)}
    network = package.Backbone(architecture, **options)
    optimizer = nnx.Optimizer(network, optax.sgd(0.05, momentum=0.9), wrt=nnx.Param)

    @nnx.jit
    def step(network, optimizer, x):
        def loss_of(network):
            return optax.softmax_cross_entropy_with_integer_labels(network(x), labels).mean()

        optimizer.update(network, nnx.grad(loss_of)(network))

    for _ in range(steps):
        step(network, optimizer, jnp.asarray(x))
    return package.to_canonical(network)


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
