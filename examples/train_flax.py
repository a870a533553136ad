"""Train a network with CBAM in Flax, on CIFAR-10, CIFAR-100 or a folder such as ImageNet.

Every batch is split over all devices of the machine. A run that was killed goes on with --resume,
on a CPU to the bits that it would have had; and so it does in the recipes of the other frameworks.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import runs
from flax import nnx
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from pictures import Batch, Pictures

import cbam_flax
from cbam_core import Architecture
from cbam_core.slots import OPTAX
from cbam_flax.train import load_state, to_state

MESH = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
SPLIT = NamedSharding(MESH, PartitionSpec("devices"))
EVERYWHERE = NamedSharding(MESH, PartitionSpec())


def main() -> None:
    args = runs.arguments(__doc__, "python examples/train_flax.py", jax.device_count())
    train, test = runs.data(args)
    if args.evaluate:
        architecture, weights = runs.network(args.evaluate, len(test.classes))
        network = build(architecture, args)
        cbam_flax.load_canonical(network, weights)
        runs.show(evaluate(network, test, args))
    else:
        fit(args, train, test)


def fit(args: argparse.Namespace, train: Pictures, test: Pictures) -> None:
    """Train from the newest checkpoint, or from the beginning, to the end."""
    run = runs.Run(args, train)
    network = build(run.architecture, args)
    rate = optax.piecewise_constant_schedule(args.lr, dict.fromkeys(run.drops, runs.DROP))
    rule = optax.chain(
        optax.add_decayed_weights(args.weight_decay), optax.sgd(rate, args.momentum or None)
    )
    optimizer = nnx.Optimizer(network, rule, wrt=nnx.Param)
    state = run.start()
    load_state(network, optimizer, OPTAX.from_canonical(state))
    nnx.update((network, optimizer), jax.device_put(nnx.state((network, optimizer)), EVERYWHERE))

    for piece in run.pieces(state.step):
        network.train()
        total = jnp.zeros(4)
        for step, batch in enumerate(batches(train, piece.indices, args, piece.epoch), state.step):
            total += train_step(network, optimizer, *batch)
            run.progress(step + 1)
        tested = evaluate(network, test, args) if piece.ends_epoch else {}
        step = int(optimizer.step[...])
        state = to_state(network, optimizer, run.recipe(step))
        run.end(piece, OPTAX.to_canonical(state), means(total), tested)
    run.finish(cbam_flax.to_canonical(network))


def build(architecture: Architecture, args: argparse.Namespace) -> cbam_flax.Backbone:
    dtype = jnp.bfloat16 if args.amp else jnp.float32
    return cbam_flax.Backbone(architecture, dtype=dtype, rngs=nnx.Rngs(0))


@nnx.jit
def train_step(network: Any, optimizer: nnx.Optimizer, x: Array, labels: Array) -> Array:
    """One step; the `sums` of its batch before it."""

    def loss_of(network: Any) -> tuple[Array, Array]:
        found = sums(network(x), labels)
        return found[0] / len(labels), found

    (_, found), gradients = nnx.value_and_grad(loss_of, has_aux=True)(network)
    optimizer.update(network, gradients)
    return found


def evaluate(
    network: cbam_flax.Backbone, test: Pictures, args: argparse.Namespace
) -> dict[str, float]:
    """Mean loss, and how often the label is the first and among the first five."""
    network.eval()
    total = jnp.zeros(4)
    for batch in batches(test, test.in_turn(args.batch_size), args):
        total += test_step(network, *batch)
    return means(total)


test_step = nnx.jit(lambda network, x, labels: sums(network(x), labels))


def batches(
    pictures: Pictures,
    indices: Sequence[np.ndarray],
    args: argparse.Namespace,
    epoch: int | None = None,
) -> Iterator[tuple[Array, Array]]:
    """Each batch, split over the devices; the next ones are read by threads meanwhile."""

    def read(batch: np.ndarray) -> Batch:
        x, labels = pictures.batch(batch, epoch)
        # One shape is compiled once and can be split: a short batch is filled up, with labels that
        # do not count.
        missing = args.batch_size - len(batch)
        x = np.pad(x, [(0, missing), (0, 0), (0, 0), (0, 0)])
        return x, np.pad(labels, (0, missing), constant_values=-1)

    with ThreadPoolExecutor(max(1, args.workers)) as threads:
        waiting: deque = deque()
        for batch in indices:
            waiting.append(threads.submit(read, batch))
            if len(waiting) > 2 * max(1, args.workers):
                yield jax.device_put(waiting.popleft().result(), SPLIT)
        while waiting:
            yield jax.device_put(waiting.popleft().result(), SPLIT)


def sums(logits: Array, labels: Array) -> Array:
    """(4,): the loss, labels that came first and among the first five, and their number."""
    logits = logits.astype(jnp.float32)
    counts = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    found = jax.lax.top_k(logits, min(5, logits.shape[1]))[1] == labels[:, None]
    return jnp.stack([losses @ counts, found[:, 0].sum(), found.sum(), counts.sum()])


def means(total: Array) -> dict[str, float]:
    loss, top1, top5 = (np.asarray(total[:3], np.float64) / float(total[3])).tolist()
    return {"loss": loss, "top1": top1, "top5": top5}


if __name__ == "__main__":
    main()
