"""Runs of a model with TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from crosscheck.benchmark.candidate import Model
from crosscheck.benchmark.plan import Plan


def prepare(plan: Plan) -> None:
    if plan.device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise RuntimeError("TensorFlow sees no GPU here; run with --device cpu")


def array(shape: tuple[int, ...], plan: Plan, seed: int = 0) -> tf.Tensor:
    batch, channels, *space = shape
    drawn = np.random.default_rng(seed).standard_normal((batch, *space, channels), np.float32)
    with tf.device(f"/{plan.device.upper()}:0"):
        return tf.identity(tf.cast(drawn, plan.dtype))


def wait(result: Any) -> None:
    tf.test.experimental.sync_devices()


def copy(x: tf.Tensor) -> Callable[[], Any]:
    # TensorFlow has no copy of its own that fills a whole tensor as fast.
    source = x.numpy()
    into = np.zeros(source.shape, source.dtype)
    return lambda: np.copyto(into, source)


def scale(x: tf.Tensor) -> Callable[[], tf.Tensor]:
    scaled = tf.function(lambda x: x * tf.cast(1.0001, x.dtype))
    return lambda: scaled(x)


class Passes:
    """The passes of a model in a mode, "eager", "function" or "xla".

    Args:
        build: makes the model, for training or for evaluation.
        x, cotangent: of the input and of the output.
        by_input: whether a training pass has the gradient by x too, as inside of a network.
    """

    def __init__(
        self,
        build: Callable[[bool], Model],
        x: tf.Tensor,
        cotangent: tf.Tensor,
        *,
        mode: str,
        by_input: bool,
    ) -> None:
        self.x, self.cotangent = x, cotangent
        self.build, self.mode, self.by_input = build, mode, by_input

    @functools.cached_property
    def trained(self) -> Model:
        return self.build(True)

    @functools.cached_property
    def _forward(self) -> Callable[..., tf.Tensor]:
        return _in(self.mode, self.build(False).call)

    @functools.cached_property
    def _training(self) -> Callable[..., Any]:
        # The model is built here and not in a graph.
        model = self.trained

        def differentiated(x: tf.Tensor, cotangent: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model.call(x)
            sources = [x] * self.by_input + list(model.weights)
            # All of a step's results: what nobody needs would not be computed.
            return y, tape.gradient(y, sources, cotangent)

        return _in(self.mode, differentiated)

    def forward(self) -> tf.Tensor:
        return self._forward(self.x)

    def training(self) -> Any:
        return self._training(self.x, self.cotangent)

    def kept(self) -> int:
        """Bytes that the forward pass keeps for the backward one, beyond x, y and the weights.

        They are what operations of the one take from operations of the other, in a graph.
        """
        kept: dict[Any, int] = {}
        model = self.trained

        def traced(x: tf.Tensor, cotangent: tf.Tensor) -> Any:
            graph = tf.compat.v1.get_default_graph()
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model.call(x)
            forward = set(map(id, graph.get_operations()))
            gradients = tape.gradient(y, [x, *model.weights], cotangent)
            backward = [one for one in graph.get_operations() if id(one) not in forward]
            taken = [_source(t) for one in backward for t in one.inputs if id(t.op) in forward]
            known = {_source(y).ref(), _source(x).ref()}
            for tensor in taken:
                if tensor.ref() not in known and tensor.op.type not in _WITHOUT_MEMORY:
                    kept[tensor.ref()] = tensor.shape.num_elements() * tensor.dtype.size
            return gradients

        tf.function(traced, autograph=False).get_concrete_function(self.x, self.cotangent)
        return sum(kept.values())

    def allocated(self) -> None:
        """TensorFlow's profiler does not count what is allocated on a CPU."""


def _in(mode: str, run: Callable[..., Any]) -> Callable[..., Any]:
    if mode == "eager":
        return run
    return tf.function(run, autograph=False, jit_compile=mode == "xla")


# Operations whose result is their first input's memory, and those whose result is a weight's, a
# handle or known before the pass.
_SAME_MEMORY = ("Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient")
_WITHOUT_MEMORY = ("ReadVariableOp", "Placeholder", "Const", "Shape")


def _source(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor that first had this memory."""
    while tensor.op.type in (*_SAME_MEMORY, "IdentityN"):
        place = tensor.value_index if tensor.op.type == "IdentityN" else 0
        tensor = tensor.op.inputs[place]
    return tensor
