"""Keras on JAX: keras.distribution.DataParallel over eight devices, one picture on each.

    python -m tests.distributed.keras_distribution

Under jax.jit a statistic is that of the whole batch, wherever its parts are.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import keras

import cbam_keras
from tests.distributed import step


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    network = cbam_keras.Backbone(step.ARCHITECTURE)
    cbam_keras.load_canonical(network, step.WEIGHTS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(step.RATE), loss)
    history = network.fit(
        step.pictures(), step.labels(), batch_size=step.BATCH, shuffle=False, verbose=0
    )
    step.judge(history.history["loss"][0], cbam_keras.to_canonical(network))


if __name__ == "__main__":
    main()
