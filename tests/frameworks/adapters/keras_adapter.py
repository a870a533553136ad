"""How the conformance test drives cbam_keras: arrays are NumPy and channels last."""

import keras
import numpy as np

import cbam_keras as package
from cbam_core.slots import KERAS as CONVENTION
from cbam_keras import train
from cbam_keras.evaluate import differentiate as _differentiate
from cbam_keras.evaluate import evaluate, prepare

__all__ = [
    "CONVENTION", "LOADS", "RUNS", "build", "call", "differentiate", "evaluate", "gate", "package",
    "save", "save_run", "train",
]  # fmt: skip

# Float64 has to be asked for on JAX.
prepare("cpu")


def build(name, *arguments, dtype="float32", **keywords):
    """What the package's `name` makes: a class, "CBAM.from_spec" or a network's factory."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, dtype=dtype, **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C); a list of arrays where the module gives several maps."""
    y = module(x, training=training)
    return [_numpy(part) for part in y] if isinstance(y, list) else _numpy(y)


def differentiate(network, x, cotangent, training=False):
    """What `evaluate` returns of a block, of a network that is there: the arrays alone."""
    return _differentiate(network, x, cotangent, training=training)[0]


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    return _numpy(module.gate(x))


def _numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


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
