"""Flax linen: jax.jit over eight devices, of which each has one picture, or eight rows of them all.

    python -m tests.distributed.linen_sharding [batch | height]

Under jax.jit a statistic is that of the whole array, wherever its parts are.
"""

from __future__ import annotations

import os
import sys

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import cbam_flax.linen as cbam_linen
from tests.distributed import step

DEVICES = 8
SPLITS = {"batch": PartitionSpec("devices"), "height": PartitionSpec(None, "devices")}


def main(split: str = "batch") -> None:
    jax.config.update("jax_enable_x64", True)
    mesh = jax.make_mesh((DEVICES,), ("devices",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    network = cbam_linen.Backbone(
        step.ARCHITECTURE, param_dtype="float64", use_running_average=False
    )
    variables = jax.device_put(cbam_linen.load_canonical(network, step.WEIGHTS), everywhere)
    x = jax.device_put(step.pictures(), NamedSharding(mesh, SPLITS[split]))
    labels = jax.device_put(step.labels(), everywhere)
    optimizer = optax.sgd(step.RATE)

    @jax.jit
    def train(variables, state, x, labels):
        def loss_of(params):
            logits, updated = network.apply(
                {**variables, "params": params}, x, mutable=["batch_stats"]
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, updated

        (loss, updated), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradients, state)
        return loss, {"params": optax.apply_updates(variables["params"], updates), **updated}, state

    state = optimizer.init(variables["params"])
    loss, variables, state = train(variables, state, x, labels)
    step.judge(loss, cbam_linen.to_canonical(network, variables))


if __name__ == "__main__":
    main(*sys.argv[1:])
