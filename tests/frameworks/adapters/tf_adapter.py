"""How the conformance test drives cbam_tf: arrays are NumPy, in canonical layout."""

import tensorflow as tf

import cbam_tf as package
from cbam_tf.evaluate import evaluate

__all__ = ["LOADS", "build", "call", "evaluate", "gate", "package", "save"]


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
