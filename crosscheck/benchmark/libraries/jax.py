"""Runs of a model with JAX, always under jit."""

from __future__ import annotations

import functools
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
        self.build, self.by_input = build, by_input
        self._forward = jax.jit(lambda weights, x: self.evaluated.call(weights, x)[0])
        self._training = jax.jit(self._differentiated)

    @functools.cached_property
    def evaluated(self) -> Model:
        return self.build(False)

    @functools.cached_property
    def trained(self) -> Model:
        return self.build(True)

    def _pass(self, weights: Any, x: Array) -> Any:
        """The output, the pullback, and the other state after the pass."""
        if self.by_input:
            return jax.vjp(self.trained.call, weights, x, has_aux=True)
        return jax.vjp(lambda weights: self.trained.call(weights, x), weights, has_aux=True)

    def _differentiated(self, weights: Any, x: Array, cotangent: Array) -> Any:
        y, pullback, after = self._pass(weights, x)
        # All of a step's results: what nobody needs would not be computed.
        return y, pullback(cotangent.astype(y.dtype)), after

    def forward(self) -> Array:
        return self._forward(self.evaluated.weights, self.x)

    def training(self) -> Any:
        return self._training(self.trained.weights, self.x, self.cotangent)

    def kept(self) -> int:
        """Bytes that the forward pass keeps for the backward one, beyond x, y and the weights."""
        y, pullback, _ = self._pass(self.trained.weights, self.x)
        known = _contents((self.trained.weights, self.x, y))
        # A pullback is a tree of what it keeps.
        kept = _contents(pullback)
        return sum(size for content, size in kept.items() if content not in known)

    def allocated(self) -> int | None:
        """Bytes that a forward pass has in use at its peak, by XLA's own count."""
        compiled = self._forward.lower(self.evaluated.weights, self.x).compile()
        analysis = compiled.memory_analysis()
        if analysis is None:
            return None
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _contents(tree: Any) -> dict[int, int]:
    """What stands in each array -> its bytes.

    Outside of jit x is copied on its way, so that where an array lies does not tell what it is.
    """
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array)]
    return {hash(array.tobytes()): array.nbytes for array in arrays}
