"""How the conformance test drives cbam_tf: arrays are NumPy, in canonical layout."""

import tensorflow as tf

import cbam_core
import cbam_tf as package
from cbam_core.costs import is_statistic
from cbam_core.slots import KERAS as CONVENTION
from cbam_tf import train
from cbam_tf.evaluate import evaluate
from cbam_tf.weights import canonical_array, named_weights

__all__ = [
    "CONVENTION", "LOADS", "RUNS", "build", "call", "differentiate", "evaluate", "gate", "package",
    "save", "save_run", "train",
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
