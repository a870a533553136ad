"""A case, what is run once in every framework, and the choice of its cotangent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbam_core import Architecture, CBAMSpec, reference, reference_network
from cbam_core.costs import is_statistic
from cbam_core.reference import Step

# Draws of a block's cotangent, of which the best is taken.
DRAWS = 8


@dataclass(frozen=True)
class Case:
    """A block or a network on an input.

    Attributes:
        name: of what is run, and of the input.
        described: the spec of the block, or the architecture of the network.
        x: (N, *S, C).
        cotangent: of the output's shape; the loss is sum(output * cotangent).
        weights: canonical name -> array.
    """

    name: str
    described: CBAMSpec | Architecture
    x: np.ndarray
    cotangent: np.ndarray
    weights: dict[str, np.ndarray]

    @property
    def has_modes(self) -> bool:
        """Whether training differs from evaluation: whether there are batch statistics."""
        return any(map(is_statistic, self.weights))

    def expected(self, training: bool) -> dict[str, np.ndarray]:
        """What the reference gives, under the names that `evaluate` uses."""
        step = run(self.described, self.weights, self.x, training=training)
        return step.quantities(self.cotangent)

    def expected_gates(self) -> dict[str, np.ndarray]:
        """The gates that the reference gives in evaluation, under the names of `evaluate_gates`."""
        step = run(self.described, self.weights, self.x, training=False)
        return {f"gate:{name}": gate for name, gate in step.gates.items()}

    def rounded(self, dtype: str) -> Case:
        """The same case with all values rounded to `dtype`, kept as float64 arrays."""
        return Case(
            self.name,
            self.described,
            round_to(self.x, dtype),
            round_to(self.cotangent, dtype),
            {name: round_to(weight, dtype) for name, weight in self.weights.items()},
        )


def round_to(array: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values of `array` rounded to `dtype`, to nearest even.

    >>> round_to(np.array([1.00390625, 3.0]), "bfloat16")
    array([1., 3.])
    """
    if dtype != "bfloat16":
        return array.astype(dtype).astype(np.float64)
    # bfloat16 is the upper half of float32.
    bits = array.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(array), rounded.view(np.float32), array).astype(np.float64)


def run(
    described: CBAMSpec | Architecture,
    weights: dict[str, np.ndarray],
    x: np.ndarray,
    *,
    training: bool,
) -> Step:
    """The reference's pass, of a block or a network."""
    if isinstance(described, Architecture):
        return reference_network.run(described, weights, x, training=training)
    return reference.run(described, weights, x, training=training)


def made(
    name: str,
    described: CBAMSpec | Architecture,
    weights: dict[str, np.ndarray],
    x: np.ndarray,
    *,
    draws: int,
) -> Case:
    """The case with the kindest of so many cotangents, each of which costs two passes back."""
    passes = [run(described, weights, x, training=training) for training in (False, True)]
    shape = passes[0].output.shape
    drawn = [np.random.default_rng([13, k]).standard_normal(shape) for k in range(draws)]
    return Case(name, described, x, kindest(drawn, passes), weights)


def kindest(draws: Sequence[np.ndarray], passes: Sequence[Step]) -> np.ndarray:
    """The one of several cotangents that makes no gradient smaller than it usually is.

    A gradient is a sum of many terms. Where they happen to cancel, rounding is large relative to
    what is left, in every implementation, and a limit relative to it says nothing.
    """
    sizes = np.array(
        [
            [np.abs(g).max() for one in passes for g in one.pullback(draw)[1].values()]
            for draw in draws
        ]
    )
    with np.errstate(all="ignore"):
        shares = sizes / sizes.mean(0)
    # Of a weight whose gradient is 0 whatever the cotangent there is nothing to choose.
    return draws[int(np.argmax(np.where(sizes.any(0), shares, 1.0).min(1)))]
