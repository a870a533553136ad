"""Flax nnx: jax.jit over eight devices, of which each has one picture, or eight rows of them all.

    python -m tests.distributed.flax_sharding [batch | height]

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
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import cbam_flax
from tests.distributed import step

DEVICES = 8
SPLITS = {"batch": PartitionSpec("devices"), "height": PartitionSpec(None, "devices")}


def main(split: str = "batch") -> None:
    jax.config.update("jax_enable_x64", True)
    mesh = jax.make_mesh((DEVICES,), ("devices",), axis_types=(AxisType.Auto,))
    network = nnx.eval_shape(
        lambda: cbam_flax.Backbone(step.ARCHITECTURE, param_dtype="float64", rngs=nnx.Rngs(0))
    )
    cbam_flax.load_canonical(network, step.WEIGHTS)
    optimizer = nnx.Optimizer(network, optax.sgd(step.RATE), wrt=nnx.Param)
    everywhere = NamedSharding(mesh, PartitionSpec())
    nnx.update(network, jax.device_put(nnx.state(network), everywhere))
    nnx.update(optimizer, jax.device_put(nnx.state(optimizer), everywhere))
    x = jax.device_put(step.pictures(), NamedSharding(mesh, SPLITS[split]))
    labels = jax.device_put(step.labels(), everywhere)
    loss = train(network, optimizer, x, labels)
    step.judge(loss, cbam_flax.to_canonical(network))


@nnx.jit
def train(network, optimizer, x, labels):
    def loss_of(network):
        return optax.softmax_cross_entropy_with_integer_labels(network(x), labels).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, gradients)
    return loss


if __name__ == "__main__":
    main(*sys.argv[1:])
