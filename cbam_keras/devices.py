"""Where a backend computes, which Keras does not say."""

from __future__ import annotations

import keras


def is_on_cpu() -> bool:
    """Whether the backend has no other device than a CPU."""
    match keras.config.backend():
        case "tensorflow":
            import tensorflow as tf

            return not tf.config.list_logical_devices("GPU")
        case "jax":
            import jax

            return jax.default_backend() == "cpu"
        case _:
            import torch

            return not torch.cuda.is_available()
