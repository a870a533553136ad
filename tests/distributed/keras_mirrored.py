"""Keras on TensorFlow: MirroredStrategy over two logical CPUs, half of the batch on each.

    python -m tests.distributed.keras_mirrored [--local]

With --local the norms are not synchronized.
"""

from __future__ import annotations

import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf

import cbam_keras
from tests.distributed import step

REPLICAS = 2


def main() -> None:
    keras.config.set_floatx("float64")
    (cpu,) = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
    tf.config.set_logical_device_configuration(cpu, logical)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(REPLICAS)])
    with strategy.scope():
        network = cbam_keras.Backbone(step.ARCHITECTURE, synchronized="--local" not in sys.argv)
        cbam_keras.load_canonical(network, step.WEIGHTS)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(keras.optimizers.SGD(step.RATE), loss)
    history = network.fit(
        step.pictures(), step.labels(), batch_size=step.BATCH, shuffle=False, verbose=0
    )
    step.judge(history.history["loss"][0], cbam_keras.to_canonical(network))


if __name__ == "__main__":
    main()
