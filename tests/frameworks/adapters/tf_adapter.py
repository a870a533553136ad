"""How the conformance test drives cbam_tf: arrays are NumPy, in canonical layout."""

import tensorflow as tf

import cbam_core
import cbam_tf as package
from cbam_core.costs import is_statistic
from cbam_core.slots import KERAS as CONVENTION
from cbam_tf import ops, train
from cbam_tf.evaluate import evaluate
from cbam_tf.weights import canonical_array, named_weights

__all__ = [
    "CONVENTION", "LOADS", "PLACE", "RUNS", "Mixed", "around", "build", "call", "differentiate",
    "evaluate", "explain", "gate", "insert", "kept", "package", "path", "save", "save_run",
    "surface", "train", "train_from_seed",
]  # fmt: skip


def build(name, *arguments, dtype="float32", **keywords):
    """What the package's `name` makes: a class, "CBAM.from_spec" or a network's factory."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, dtype=getattr(tf, dtype), **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C); a list of arrays where the module gives several maps."""
    y = module(tf.constant(x), training=training)
    return [part.numpy() for part in y] if isinstance(y, list) else y.numpy()


def differentiate(network, x, cotangent, training=False, call=None):
    """What `evaluate` returns of a block, of a network that is there: the arrays alone.

    `call` is a tf.function of the network.
    """
    leaf, state = tf.constant(x), named_weights(network)
    sources = {"input": leaf} | {n: w for n, w in state.items() if not is_statistic(n)}
    with tf.GradientTape() as tape:
        tape.watch(leaf)
        y = (call or network)(leaf, training=training)
    gradients = tape.gradient(y, sources, tf.constant(cotangent))
    arrays = {"output": canonical_array(y)}
    arrays |= {f"grad:{name}": canonical_array(g) for name, g in gradients.items()}
    arrays |= {f"state:{n}": canonical_array(w) for n, w in state.items() if is_statistic(n)}
    return arrays


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    return module.gate(tf.constant(x)).numpy()


def explain(module, x, asked, compiled=False):
    """The attention maps for x (N, *S, C), and the Grad-CAM of each (target, at) that is asked."""

    def run(x):
        cams = [package.grad_cam(module, x, *one) for one in asked]
        return package.attention_maps(module, x), cams

    maps, cams = (tf.function(run) if compiled else run)(tf.constant(x))
    return {name: gate.numpy() for name, gate in maps.items()}, [cam.numpy() for cam in cams]


def around(block):
    """A model that passes its input to the block `inner` by its name."""

    class Around(tf.Module):
        def __init__(self):
            super().__init__()
            self.inner = block

        def __call__(self, x):
            return self.inner(x=x)

    return Around()


# The last norm of a network of one block, and the CBAM that `insert` puts behind it.
PLACE = ("stage1.block0.norm2", "stage1.block0.norm2.cbam")


def insert(network, where, spec, x, **options):
    """The network with a CBAM behind each module that is meant."""
    return package.insert_cbam(network, where, spec, example=tf.constant(x), **options)


def surface(network):
    """What of its modules a function that looks on may leave changed, beside weights."""
    modules = [(type(module), sorted(vars(module))) for module in network.submodules]
    return tf.config.functions_run_eagerly(), modules


def save(module, folder):
    """The files in which its users save a module."""
    alone = tf.train.Checkpoint(module).save(str(folder / "alone"))
    optimizer = tf.keras.optimizers.Adam()
    optimizer.build(module.trainable_variables)
    beside = tf.train.Checkpoint(model=module, optimizer=optimizer).save(str(folder / "beside"))
    tf.saved_model.save(module, str(folder / "saved"))
    return [alone, f"{beside}.index", folder / "saved"]


def _load(module, path):
    reader = tf.train.load_checkpoint(str(path))
    names = package.to_canonical(module)
    package.load_canonical(module, {name: reader.get_tensor(name) for name in names})


def _load_as_tensorflow_1(module, path):
    weights = package.to_canonical(module)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, array.shape, array.dtype)
            for name, array in weights.items()
        }
        tf.compat.v1.train.Saver(variables).restore(session, tf.train.latest_checkpoint(path))
        weights = session.run(variables)
    package.load_canonical(module, weights)


# Ending, dialect, and how its users load such a file into a module.
LOADS = [(".tf", None, _load), (".tf", None, _load_as_tensorflow_1)]


def path(x):
    """What the primitives run on for x (N, *S, C)."""
    return ops.path(tf.constant(x))


def kept(module, x):
    """The shapes of the arrays that a pass over x keeps for the backward pass, weights included."""
    forward = set()

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = module(x)
        forward.update(op.name for op in x.graph.get_operations())
        return tape.gradient(y, [x, *module.trainable_variables], tf.ones(y.shape, y.dtype))

    graph = step.get_concrete_function(tf.constant(x)).graph
    backward = [op for op in graph.get_operations() if op.name not in forward]
    used = {_origin(t).ref() for op in backward for t in op.inputs if t.op.name in forward}
    return [tuple(tensor.deref().shape) for tensor in used]


def _origin(tensor):
    """The tensor of which this is another name."""
    while tensor.op.type in ("Identity", "IdentityN", "Reshape", "StopGradient"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


class Mixed:
    """A float32 module on a half-precision input, float16 with a LossScaleOptimizer."""

    def __init__(self, name, *arguments, dtype, weights):
        self.module, self.dtype = build(name, *arguments), dtype
        package.load_canonical(self.module, weights)
        self.optimizer = tf.keras.optimizers.SGD(0.01)
        if dtype == "float16":
            self.optimizer = tf.keras.mixed_precision.LossScaleOptimizer(self.optimizer)

    def call(self, x, training=False):
        """The output for x (N, *S, C), as float32."""
        return tf.cast(self.module(tf.cast(x, self.dtype), training=training), tf.float32).numpy()

    def step(self, x, target):
        """A step by the mean squared error."""
        with tf.GradientTape() as tape:
            y = tf.cast(self.module(tf.cast(x, self.dtype), training=True), tf.float32)
            loss = tf.reduce_mean((y - tf.cast(target, tf.float32)) ** 2)
            loss = self.optimizer.scale_loss(loss)
        variables = self.module.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def weights(self):
        return package.to_canonical(self.module)

    def kinds(self):
        """The dtypes of weights and statistics."""
        return {variable.dtype.name for variable in self.module.variables}


def train_from_seed(architecture, seed, x, labels, steps):
    """The weights of a new network after steps of SGD, by a seed alone; for a fresh process."""
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(seed)
    network = build("Backbone", architecture, dtype=x.dtype.name)
    optimizer = tf.keras.optimizers.SGD(0.05, momentum=0.9)
    optimizer.build(network.trainable_variables)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            logits = network(x, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    for _ in range(steps):
        step(tf.constant(x))
    return package.to_canonical(network)


def save_run(trainer, folder):
    """The files in which its users save a run, and what else has to be said of each."""
    saved = tf.train.Checkpoint(model=trainer.network, optimizer=trainer.optimizer)
    described = {"architecture": trainer.network.architecture.to_dict()}
    return {saved.save(str(folder / "run")): described | trainer.recipe.to_dict()}


def _load_run(trainer, path):
    state = CONVENTION.from_canonical(cbam_core.read_state(path))
    train.load_state(trainer.network, trainer.optimizer, state)


# Ending, and how its users go on with a run from such a file.
RUNS = [(".safetensors", _load_run)]
