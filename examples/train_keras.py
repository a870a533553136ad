"""Train a network with CBAM in Keras, on CIFAR-10, CIFAR-100 or a folder such as ImageNet.

On the backend that KERAS_BACKEND names. A run that was killed goes on with --resume, on a CPU to
the bits that it would have had; and so it does in the recipes of the other frameworks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import runs
from keras import ops
from pictures import Batch, Pictures

import cbam_keras
from cbam_keras.train import load_state, to_state

# Keras's progress bar is for a terminal.
VERBOSE = int(sys.stdout.isatty())


def main() -> None:
    args = runs.arguments(__doc__, "KERAS_BACKEND=jax python examples/train_keras.py")
    train, test = runs.data(args)
    if args.amp:
        keras.config.set_dtype_policy("mixed_bfloat16")
    if args.evaluate:
        architecture, weights = runs.network(args.evaluate, len(test.classes))
        network = compiled(cbam_keras.Backbone(architecture), args)
        cbam_keras.load_canonical(network, weights)
        runs.show(evaluate(network, test, args))
    else:
        fit(args, train, test)


def fit(args: argparse.Namespace, train: Pictures, test: Pictures) -> None:
    """Train from the newest checkpoint, or from the beginning, to the end."""
    run = runs.Run(args, train)
    network = compiled(cbam_keras.Backbone(run.architecture), args)
    optimizer = network.optimizer
    optimizer.build(network.trainable_variables)
    state = run.start()
    load_state(network, optimizer, state)

    for piece in run.pieces(state.step):
        optimizer.learning_rate = run.rate(int(optimizer.iterations))
        history = network.fit(
            Batches(train, piece.indices, args, piece.epoch),
            initial_epoch=piece.epoch,
            epochs=piece.epoch + 1,
            shuffle=False,
            verbose=VERBOSE,
        )
        trained = {name: values[0] for name, values in history.history.items()}
        tested = evaluate(network, test, args) if piece.ends_epoch else {}
        state = to_state(network, optimizer, run.recipe(int(optimizer.iterations)))
        run.end(piece, state, trained, tested)
    run.finish(cbam_keras.to_canonical(network))


def compiled(network: keras.Model, args: argparse.Namespace) -> keras.Model:
    network.compile(
        SGD(args.lr, args.momentum, decay=args.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="top1"),
            keras.metrics.MeanMetricWrapper(top5, name="top5"),
        ],
    )
    return network


def top5(labels: Any, logits: Any) -> Any:
    """Which labels are among the first five; TensorFlow's has no bfloat16."""
    logits = ops.cast(logits, "float32")
    count = min(5, logits.shape[1])
    return keras.metrics.sparse_top_k_categorical_accuracy(labels, logits, count)


def evaluate(network: keras.Model, test: Pictures, args: argparse.Namespace) -> dict[str, float]:
    """Mean loss, and how often the label is the first and among the first five."""
    batches = Batches(test, test.in_turn(args.batch_size), args)
    return network.evaluate(batches, verbose=VERBOSE, return_dict=True)


class SGD(keras.optimizers.SGD):
    """SGD as the authors' code has it: v = momentum v + gradient + decay p;  p -= rate v.

    In Keras's own the rate is a part of v, which a drop of the rate does not reach, and a weight
    decay is none, so that the same number decays the less by a factor of 1 - momentum.
    """

    def __init__(self, learning_rate: float, momentum: float, *, decay: float) -> None:
        super().__init__(learning_rate, momentum)
        self.decay = decay

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        change = gradient + self.decay * variable
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            change = self.momentum * velocity + change
            self.assign(velocity, change)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * change)


class Batches(keras.utils.PyDataset):
    """Batches of pictures and labels, augmented as in `epoch`, or not at all if None."""

    def __init__(
        self,
        pictures: Pictures,
        indices: Sequence[np.ndarray],
        args: argparse.Namespace,
        epoch: int | None = None,
    ) -> None:
        super().__init__(workers=max(1, args.workers))
        self.pictures, self.indices, self.epoch = pictures, indices, epoch

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Batch:
        return self.pictures.batch(self.indices[place], self.epoch)


if __name__ == "__main__":
    main()
