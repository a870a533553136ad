"""TensorFlow: MirroredStrategy over two logical CPUs, half of the batch on each.

    python -m tests.distributed.tf_mirrored [--local]

With --local the norms are not synchronized.
"""

from __future__ import annotations

import sys

import tensorflow as tf

import cbam_tf
from tests.distributed import step

REPLICAS = 2


def main() -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
    tf.config.set_logical_device_configuration(cpu, logical)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(REPLICAS)])
    with strategy.scope():
        synchronized = "--local" not in sys.argv
        network = cbam_tf.Backbone(step.ARCHITECTURE, dtype=tf.float64, synchronized=synchronized)
        cbam_tf.load_canonical(network, step.WEIGHTS)
        optimizer = tf.keras.optimizers.SGD(step.RATE)
        optimizer.build(network.trainable_variables)
    data = tf.data.Dataset.from_tensors((step.pictures(), step.labels())).unbatch()
    (batch,) = strategy.experimental_distribute_dataset(data.batch(step.BATCH))

    def train(x, labels):
        with tf.GradientTape() as tape:
            logits = network(x, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.nn.compute_average_loss(losses, global_batch_size=step.BATCH)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return loss

    losses = tf.function(lambda: strategy.run(train, batch))()
    loss = strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
    step.judge(loss, cbam_tf.to_canonical(network))


if __name__ == "__main__":
    main()
