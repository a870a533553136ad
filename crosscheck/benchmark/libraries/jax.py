"""Runs of a model with JAX, always under jit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crosscheck.benchmark.candidate import Model
from crosscheck.benchmark.plan import Plan


def prepare(plan: Plan) -> None:
    try:
        jax.devices(plan.device)
    except RuntimeError:
        device = plan.device.upper()
        raise RuntimeError(f"JAX sees no {device} here; run with --device cpu") from None
    jax.config.update("jax_default_device", jax.devices(plan.device)[0])
    jax.config.update("jax_enable_x64", plan.dtype == "float64")


def array(shape: tuple[int, ...], plan: Plan, seed: int = 0) -> Array:
    batch, channels, *space = shape
    drawn = np.random.default_rng(seed).standard_normal((batch, *space, channels), np.float32)
    return jnp.asarray(drawn, plan.dtype)


def wait(result: Any) -> None:
    jax.block_until_ready(result)


def copy(x: Array) -> Callable[[], Any]:
    (device,) = x.devices()
    if device.platform == "cpu":
        # XLA's own copy is slower than the C library's.
        source, into = np.asarray(x), np.zeros(x.shape, x.dtype)
        return lambda: np.copyto(into, source)
    fill = jax.jit(lambda into, x: x, donate_argnums=0, keep_unused=True)
    mapped = [jnp.zeros_like(x)]

    def copied() -> Array:
        mapped[0] = fill(mapped[0], x)
        return mapped[0]

    return copied


def scale(x: Array) -> Callable[[], Array]:
    scaled = jax.jit(lambda x: x * 1.0001)
    return lambda: scaled(x)


class Passes:
    """The passes of a model in the mode "jit".

    Args:
        build: makes the model, for training or for evaluation.
        x, cotangent: of the input and of the output.
        by_input: whether a training pass has the gradient by x too, as inside of a network.
    """

    def __init__(
        self,
        build: Callable[[bool], Model],
        x: Array,
        cotangent: Array,
        *,
        mode: str,
        by_input: bool,
    ) -> None:
        self.x, self.cotangent = x, cotangent
        self.evaluated, self.trained = build(False), build(True)
        self.sources = (self.trained.weights, x) if by_input else (self.trained.weights,)
        evaluate = self.evaluated.call
        self._forward = jax.jit(lambda weights, x: evaluate(weights, x)[0])
        self._training = jax.jit(self._differentiated)

    def _call(self, weights: Any, x: Array | None = None) -> Any:
        return self.trained.call(weights, self.x if x is None else x)

    def _differentiated(self, sources: tuple[Any, ...], cotangent: Array) -> Any:
        y, pullback, after = jax.vjp(self._call, *sources, has_aux=True)
        # All of a step's results: what nobody needs would not be computed.
        return y, pullback(cotangent.astype(y.dtype)), after

    def forward(self) -> Array:
        return self._forward(self.evaluated.weights, self.x)

    def training(self) -> Any:
        return self._training(self.sources, self.cotangent)

    def kept(self) -> int:
        """Bytes that the forward pass keeps for the backward one, beyond x, y and the weights."""
        y, pullback, _ = jax.vjp(self._call, *self.sources, has_aux=True)
        # A pullback is a tree of what it keeps.
        known = _buffers((self.sources, y))
        kept = _buffers(pullback)
        return sum(size for where, size in kept.items() if where not in known)

    def allocated(self) -> int | None:
        """Bytes that a forward pass has in use at its peak, by XLA's own count."""
        compiled = self._forward.lower(self.evaluated.weights, self.x).compile()
        analysis = compiled.memory_analysis()
        if analysis is None:
            return None
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _buffers(tree: Any) -> dict[int, int]:
    """Where each array lies -> its bytes."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array)]
    return {array.unsafe_buffer_pointer(): array.nbytes for array in arrays}
