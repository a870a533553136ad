"""How the conformance test drives cbam_keras: arrays are NumPy and channels last."""

import functools
import math

import keras
import numpy as np

import cbam_keras as package
from cbam_core.slots import KERAS as CONVENTION
from cbam_keras import ops, train
from cbam_keras.evaluate import differentiate as _differentiate
from cbam_keras.evaluate import evaluate, prepare
from cbam_keras.layers import Conv2D, Linear

__all__ = [
    "CONVENTION", "LOADS", "PLACE", "RUNS", "Mixed", "around", "build", "call", "differentiate",
    "evaluate", "explain", "gate", "insert", "kept", "package", "path", "save", "save_run",
    "surface", "train", "train_from_seed",
]  # fmt: skip

# Float64 has to be asked for on JAX.
prepare("cpu")


def _drawn(initializer, shape, dtype=None):
    """Glorot's uniform values of a kernel (*K, in, out), by NumPy."""
    limit = math.sqrt(6 / (math.prod(shape[:-2]) * sum(shape[-2:])))
    return keras.ops.convert_to_tensor(np.random.uniform(-limit, limit, shape), dtype)


ON_JAX = keras.backend.backend() == "jax"
if ON_JAX:
    # XLA would compile the draw of every shape of a kernel.
    keras.initializers.GlorotUniform.__call__ = _drawn


def build(name, *arguments, dtype="float32", **keywords):
    """What the package's `name` makes: a class, "CBAM.from_spec" or a network's factory."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, dtype=dtype, **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C); a list of arrays where the module gives several maps."""
    # Of a network one program, which takes XLA a fifth of the time that its operations take.
    is_compiled = ON_JAX and isinstance(module, package.Backbone)
    y = _compiled(module, x, training) if is_compiled else module(x, training=training)
    return [_numpy(part) for part in y] if isinstance(y, list) else _numpy(y)


def _compiled(network, x, training):
    """network(x) on JAX, its statistics and seeds updated."""
    import jax

    run = jax.jit(functools.partial(network.stateless_call, training=training))
    weights, others = network.trainable_variables, network.non_trainable_variables
    y, updated = run([w.value for w in weights], [w.value for w in others], x)
    for variable, value in zip(others, updated, strict=True):
        variable.assign(value)
    return y


def differentiate(network, x, cotangent, training=False):
    """What `evaluate` returns of a block, of a network that is there: the arrays alone."""
    return _differentiate(network, x, cotangent, training=training)[0]


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    return _numpy(module.gate(x))


def _numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


def explain(module, x, asked, compiled=False):
    """The attention maps for x (N, *S, C), and the Grad-CAM of each (target, at) that is asked."""

    def run(x):
        cams = [package.grad_cam(module, x, *one) for one in asked]
        return package.attention_maps(module, x), cams

    if compiled and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        run = tf.function(run)
    # Of a network one program, which takes XLA a fifth of the time that its operations take.
    if ON_JAX and (compiled or isinstance(module, package.Backbone)):
        import jax

        run = jax.jit(run)
    maps, cams = run(keras.ops.convert_to_tensor(x))
    return {name: _numpy(gate) for name, gate in maps.items()}, [_numpy(cam) for cam in cams]


def around(block):
    """A model that passes its input to the block `inner` by its name."""

    class Around(keras.Model):
        def __init__(self):
            super().__init__(dtype=block.dtype_policy)
            self.inner = block

        def call(self, x):
            return self.inner(x=x)

    block.name = "inner"
    return Around()


# The last norm of a network of one block, and the CBAM that `insert` puts behind it.
PLACE = ("last", "last_cbam")


def insert(network, where, spec, x, **options):
    """A functional model that computes what the network does, with a CBAM behind what is meant.

    The network has one basic block behind a stem for small pictures; its norms, which have no
    biases and means, are a part of the convolutions, since Keras' own lose digits of float64, as
    its mean does.
    """
    weights = package.to_canonical(network)

    def unit(x, path, number, name):
        scale, var = (weights[f"{path}.norm{number}.{leaf}"] for leaf in ("scale", "var"))
        kernel = weights[f"{path}.conv{number}.kernel"]
        options = {"padding": "same", "use_bias": False, "name": name, "dtype": "float64"}
        conv = Conv2D(len(scale), len(kernel), **options)
        y = conv(x)
        conv.set_weights([kernel * scale / np.sqrt(var + 1e-5)])
        return y

    inputs = keras.Input(x.shape[1:], dtype="float64")
    stem = keras.ops.relu(unit(inputs, "stem", "", "stem"))
    inner = keras.ops.relu(unit(stem, "stage1.block0", 1, "first"))
    shortcut = unit(stem, "stage1.block0.projection", "", "shortcut")
    block = keras.ops.relu(unit(inner, "stage1.block0", 2, "last") + shortcut)
    head = Linear(weights["head.linear.bias"].size, dtype="float64")
    model = keras.Model(inputs, head(keras.ops.sum(block, (1, 2))))
    count = x.shape[1] * x.shape[2]
    head.set_weights([weights["head.linear.kernel"] / count, weights["head.linear.bias"]])
    return package.insert_cbam(model, where, spec, **options)


def surface(network):
    """What of its layers a function that looks on may leave changed, beside weights."""
    return [(type(layer), sorted(vars(layer))) for layer in network._flatten_layers()]


def save(layer, folder):
    """The files in which its users save a layer."""
    keras.saving.save_weights(layer, folder / "layer.weights.h5")
    x = keras.Input((*[None] * layer.spec.rank, layer.spec.channels), dtype=layer.dtype)
    model = keras.Model(x, keras.layers.ReLU()(layer(x)))
    model.compile("adam", "mse")
    model.save_weights(folder / "model.weights.h5")
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    if keras.backend.backend() == "tensorflow":
        _save_with_tensorflow(model, folder)
    return sorted(folder.iterdir())


def _save_with_tensorflow(model, folder):
    import tensorflow as tf

    for place, objects in (("alone", {}), ("beside", {"optimizer": model.optimizer})):
        checkpoint = tf.train.Checkpoint(model=model, **objects)
        tf.train.CheckpointManager(checkpoint, str(folder / place), max_to_keep=1).save()
    tf.saved_model.save(model, str(folder / "saved"))
    model.export(folder / "exported", verbose=False)


def _load(layer, path):
    layer.build()
    keras.saving.load_weights(layer, path)


# Ending, dialect, and how its users load such a file into a layer.
LOADS = [(".weights.h5", None, _load)]


def path(x):
    """What the primitives run on for x (N, *S, C)."""
    return ops.path(keras.ops.convert_to_tensor(x))


def kept(module, x):
    """The shapes of the arrays that a pass over x keeps for the backward pass, weights included."""
    return _KEPT[keras.backend.backend()](module, keras.ops.convert_to_tensor(x))


def _kept_on_tensorflow(module, x):
    from tests.frameworks.adapters import tf_adapter

    return tf_adapter.kept(module, x)


def _kept_on_jax(module, x):
    import jax

    weights = [variable.value for variable in module.trainable_variables]
    others = [variable.value for variable in module.non_trainable_variables]
    _, pullback = jax.vjp(lambda w, x: module.stateless_call(w, others, x)[0], weights, x)
    return {id(array): array.shape for array in jax.tree.leaves(pullback)}.values()


def _kept_on_torch(module, x):
    import torch

    found = {}

    def pack(tensor):
        found[tensor.untyped_storage().data_ptr()] = tuple(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x.requires_grad_())
    return found.values()


_KEPT = {"tensorflow": _kept_on_tensorflow, "jax": _kept_on_jax, "torch": _kept_on_torch}


class Mixed:
    """A module of a mixed policy, float16 with a LossScaleOptimizer."""

    def __init__(self, name, *arguments, dtype, weights):
        self.module = build(name, *arguments, dtype=f"mixed_{dtype}")
        package.load_canonical(self.module, weights)
        self.model, self.optimizer = None, keras.optimizers.SGD(0.01)
        if dtype == "float16":
            self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer)

    def call(self, x, training=False):
        """The output for x (N, *S, C), as float32."""
        return _numpy(keras.ops.cast(self.module(x, training=training), "float32"))

    def step(self, x, target):
        """A step by the mean squared error."""
        if self.model is None:
            self.model = keras.Sequential([keras.Input(x.shape[1:]), self.module])
            self.model.compile(self.optimizer, "mse")
        self.model.train_on_batch(x, target)

    def weights(self):
        return package.to_canonical(self.module)

    def kinds(self):
        """The dtypes of weights and statistics."""
        return {variable.dtype for variable in self.module.variables}


def train_from_seed(architecture, seed, x, labels, steps):
    """The weights of a new network after steps of SGD, by a seed alone; for a fresh process."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)
    keras.config.set_floatx(x.dtype.name)
    keras.utils.set_random_seed(seed)
    network = build("Backbone", architecture, dtype=x.dtype.name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    for _ in range(steps):
        network.train_on_batch(x, labels)
    return package.to_canonical(network)


def save_run(trainer, folder):
    """The files in which its users save a run, and what else has to be said of each."""
    trainer.network.compile(optimizer=trainer.optimizer)
    trainer.network.save_weights(folder / "run.weights.h5")
    described = {"architecture": trainer.network.architecture.to_dict()}
    return {folder / "run.weights.h5": described | trainer.recipe.to_dict()}


def _load_run(trainer, path):
    trainer.network.compile(optimizer=trainer.optimizer)
    trainer.network.load_weights(path)


# Ending, and how its users go on with a run from such a file.
RUNS = [(".weights.h5", _load_run)]
