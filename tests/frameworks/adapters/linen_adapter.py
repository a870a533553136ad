"""How the conformance tests drive cbam_flax.linen: arrays are NumPy, channels-last.

A linen module does not hold its variables, and the blocks and networks of the conformance tests
do; so each is a module and its variables here.
"""

import functools
import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from flax import serialization
from flax.training.dynamic_scale import DynamicScale

import cbam_flax.linen as linen
from cbam_core.costs import is_statistic
from cbam_core.slots import OPTAX as CONVENTION
from cbam_flax import ops
from cbam_flax.linen import train
from cbam_flax.linen.evaluate import evaluate

__all__ = [
    "CONVENTION", "LOADS", "PLACE", "RUNS", "Mixed", "around", "build", "call", "differentiate",
    "evaluate", "explain", "gate", "insert", "kept", "package", "path", "save", "save_run",
    "surface", "train", "train_from_seed",
]  # fmt: skip

jax.config.update("jax_enable_x64", True)


class Bound:
    """A module with the variables that it would be applied to."""

    def __init__(self, module, variables):
        self.module, self.variables, self.calls = module, variables, 0

    def __getattr__(self, name):
        return getattr(self.module, name)

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
        self.calls += 1
        rngs = {"dropout": jax.random.key(self.calls)}
        # Of a network one program, which takes XLA a fifth of the time that its operations take.
        run = _apply if isinstance(self.module, linen.Backbone) else _apply.__wrapped__
        y, updated = run(self.module, self.variables, jnp.asarray(x), rngs, **options)
        self.variables = {**self.variables, **updated}
        return jax.tree.map(np.asarray, y)


@functools.partial(jax.jit, static_argnames=("module", "use_running_average", "method"))
def _apply(module, variables, x, rngs, **options):
    return module.apply(variables, x, mutable=["batch_stats"], rngs=rngs, **options)


def to_canonical(bound):
    return linen.to_canonical(*_parts(bound))


def load_canonical(bound, weights):
    module, _ = _parts(bound)
    bound.variables = linen.load_canonical(module, weights)


def _parts(bound):
    """Module and variables; what is not bound has to arrive at the package as it is."""
    return (bound.module, bound.variables) if isinstance(bound, Bound) else (bound, {})


package = SimpleNamespace(
    __name__=linen.__name__, to_canonical=to_canonical, load_canonical=load_canonical
)


def build(name, *arguments, dtype="float32", weights=None, init=None, seed=0, **keywords):
    """What the package's `name` makes: a class, "CBAM.from_spec" or a network's factory.

    Unless values are asked for, all are 0.
    """
    if weights is not None:
        init = init or "authors"
        options = {"param_dtype": dtype, "init": init, "seed": seed, **keywords}
        return Bound(*linen.pretrained(name, weights, *arguments, **options))
    constructor = linen
    for part in name.split("."):
        constructor = getattr(constructor, part)
    module = constructor(*arguments, param_dtype=dtype, **keywords)
    if init is not None:
        return Bound(module, linen.initial_variables(module, init, seed=seed))
    is_network = isinstance(module, linen.Backbone)
    shape = (32, 32, 3) if is_network else (*[3] * module.rank, module.channels)
    # The shapes alone, which compiles nothing.
    x = jax.ShapeDtypeStruct((1, *shape), "float32")
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    return Bound(module, jax.tree.map(lambda a: jnp.asarray(np.zeros(a.shape, a.dtype)), variables))


def call(bound, x, training=False):
    """What it makes of x (N, *S, C): an array, or a list of maps."""
    return bound.apply(x, training)


def gate(bound, x):
    """The block's gate for x (N, *S, C)."""
    return bound.apply(x, method="gate_of")


def differentiate(bound, x, cotangent, training=False):
    """What `evaluate` returns of a block, of a network that is there: the arrays alone."""
    network = bound.module.clone(use_running_average=not training)
    y, gradients, dx, updated = _step(
        network, bound.variables, jnp.asarray(x), jnp.asarray(cotangent)
    )
    arrays = {"output": np.asarray(y), "grad:input": np.asarray(dx)}
    # The gradients in place of the parameters, and the statistics after the pass.
    for name, array in linen.to_canonical(network, {"params": gradients, **updated}).items():
        arrays[f"{'state' if is_statistic(name) else 'grad'}:{name}"] = array
    return arrays


@functools.partial(jax.jit, static_argnames="network")
def _step(network, variables, x, cotangent):
    def run(params, x):
        return network.apply({**variables, "params": params}, x, mutable=["batch_stats"])

    y, pullback, updated = jax.vjp(run, variables["params"], x, has_aux=True)
    return y, *pullback(cotangent), updated


def explain(bound, x, asked, compiled=False):
    """The attention maps for x (N, *S, C), and the Grad-CAM of each (target, at) that is asked."""

    def run(variables, x):
        given = {"variables": variables}
        cams = [linen.grad_cam(bound.module, x, *one, **given) for one in asked]
        return linen.attention_maps(bound.module, x, **given), cams

    # Of a network one program, which takes XLA a fifth of the time that its operations take.
    is_compiled = compiled or isinstance(bound.module, linen.Backbone)
    run = jax.jit(run) if is_compiled else run
    maps, cams = run(bound.variables, jnp.asarray(x))
    return {name: np.asarray(gate) for name, gate in maps.items()}, [np.asarray(c) for c in cams]


def around(block):
    """A model that passes its input to the block `inner` by its name."""

    class Around(nn.Module):
        inner: nn.Module

        def __call__(self, x, use_running_average):
            return self.inner(x=x, use_running_average=use_running_average)

    nested = {kind: {"inner": tree} for kind, tree in block.variables.items()}
    return Bound(Around(block.module), nested)


# The last norm of a network of one block, and the CBAM that `insert` puts behind it.
PLACE = ("stage1.block0.norm2", "stage1.block0.norm2.cbam")


def insert(bound, where, spec, x, **options):
    """The network with a CBAM behind each module that is meant."""
    options |= {"param_dtype": x.dtype, "call": {"use_running_average": True}}
    return Bound(
        *linen.insert_cbam(
            bound.module, where, spec, variables=bound.variables, example=jnp.asarray(x), **options
        )
    )


def surface(bound):
    """What of its module a function that looks on may leave changed, beside weights."""
    return repr(bound.module)


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


def path(x):
    """What the primitives run on for x (N, *S, C)."""
    return ops.path(jnp.asarray(x))


def kept(bound, x):
    """The shapes of the arrays that a pass over x keeps for the backward pass, weights included."""
    network = bound.module.clone(use_running_average=True)
    _, pullback = jax.vjp(network.apply, bound.variables, x)
    return {id(array): array.shape for array in jax.tree.leaves(pullback)}.values()


class Mixed:
    """A module with float32 parameters and a half-precision dtype, float16 with a DynamicScale."""

    def __init__(self, name, *arguments, dtype, weights):
        constructor = functools.reduce(getattr, name.split("."), linen)
        self.module = constructor(*arguments, dtype=dtype, param_dtype=jnp.float32)
        self.variables = linen.load_canonical(self.module, weights)
        self.optimizer = optax.sgd(0.01)
        self.state = self.optimizer.init(self.variables["params"])
        self.scale = DynamicScale() if dtype == "float16" else DynamicScale(scale=1.0)

    def call(self, x, training=False):
        """The output for x (N, *S, C), as float32."""
        network = self.module.clone(use_running_average=not training)
        apply = jax.jit(functools.partial(network.apply, mutable=["batch_stats"]))
        y, updated = apply(self.variables, jnp.asarray(x, jnp.float32))
        self.variables = {**self.variables, **updated}
        return np.asarray(y, np.float32)

    def step(self, x, target):
        """A step by the mean squared error."""
        network = self.module.clone(use_running_average=False)
        x, target = jnp.asarray(x, jnp.float32), jnp.asarray(target, jnp.float32)
        self.variables, self.state, self.scale = _mixed_step(
            network, self.optimizer, self.variables, self.state, self.scale, x, target
        )

    def weights(self):
        return linen.to_canonical(self.module, self.variables)

    def kinds(self):
        """The dtypes of weights and statistics."""
        return {leaf.dtype.name for leaf in jax.tree.leaves(self.variables)}


@functools.partial(jax.jit, static_argnames=("network", "optimizer"))
def _mixed_step(network, optimizer, variables, state, scale, x, target):
    def loss_of(params):
        y, updated = network.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.mean((y.astype(jnp.float32) - target) ** 2), updated

    params = variables["params"]
    scale, is_finite, (_, updated), gradients = scale.value_and_grad(loss_of, has_aux=True)(params)
    updates, state = optimizer.update(gradients, state)
    # Of a gradient that is not finite nothing is left.
    updates = jax.tree.map(lambda update: jnp.where(is_finite, update, 0), updates)
    return {"params": optax.apply_updates(params, updates), **updated}, state, scale


def train_from_seed(architecture, seed, x, labels, steps):
    """The weights of a new network after steps of SGD, by a seed alone; for a fresh process."""
    x, key = jnp.asarray(x), jax.random.key(seed)
    options = {"param_dtype": x.dtype, "use_running_average": False}
    network = linen.Backbone(architecture, **options)
    variables = jax.jit(network.init)(key, x)
    optimizer = optax.sgd(0.05, momentum=0.9)

    @jax.jit
    def step(variables, state, key):
        def loss_of(params):
            parts, dropout = {**variables, "params": params}, {"dropout": key}
            logits, updated = network.apply(parts, x, mutable=["batch_stats"], rngs=dropout)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, updated

        gradients, updated = jax.grad(loss_of, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradients, state)
        return {"params": optax.apply_updates(variables["params"], updates), **updated}, state

    state = optimizer.init(variables["params"])
    for number in range(steps):
        variables, state = step(variables, state, jax.random.fold_in(key, number))
    return linen.to_canonical(network, variables)


def save_run(trainer, folder):
    """The files in which its users save a run, and what else has to be said of each."""
    run = _run(trainer)
    (folder / "run.msgpack").write_bytes(serialization.to_bytes(run))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "run", run)
    described = {"architecture": trainer.network.architecture.to_dict()}
    said = described | trainer.recipe.to_dict()
    return {folder / "run.msgpack": said, folder / "run": said}


def _run(trainer):
    return {**trainer.variables, "opt_state": trainer.slots, "step": trainer.count}


def _load_run(trainer, run):
    run = jax.tree.map(jnp.asarray, run)
    trainer.slots, trainer.count = run.pop("opt_state"), int(run.pop("step"))
    trainer.variables = run


def _from_bytes(trainer, path):
    _load_run(trainer, serialization.from_bytes(_run(trainer), path.read_bytes()))


def _restore(trainer, path):
    with ocp.StandardCheckpointer() as checkpointer:
        _load_run(trainer, serialization.from_state_dict(_run(trainer), checkpointer.restore(path)))


# Ending, and how its users go on with a run from such a file.
RUNS = [(".msgpack", _from_bytes), (".orbax", _restore)]
