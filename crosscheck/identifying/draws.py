"""Weights to probe with: nothing is 0 or 1 by chance, and no gate is saturated throughout."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from crosscheck.identifying.parts import Parts
from crosscheck.identifying.shapes import Shapes, matrix_sides

Array = np.ndarray

# The first draws use the whole range of a gate, the last the middle of it, whatever the pools are.
GAINS = (1.0, 0.3, 0.1)


def draw(shapes: Shapes, seed: int, gain: float = 1.0) -> dict[str, Array]:
    """Kernels of either sign, which leave a map's scale alone, and positive vectors."""
    return {
        name: _drawn(shape, gain, np.random.default_rng([seed, place]))
        for place, (name, shape) in enumerate(shapes.items())
    }


def _drawn(shape: tuple[int, ...], gain: float, rng: np.random.Generator) -> Array:
    if len(shape) < 2 or max(shape) == 1:
        return rng.uniform(0.2, 0.8, shape)
    # A pair of matrices (C, h) and (h, C) keeps the scale if both have (C h)^(-1/4).
    power = -0.25 if matrix_sides(shape) else -0.5
    kernel = gain * 0.7 * math.prod(shape) ** power * rng.standard_normal(shape)
    # A hidden unit answers to what differs between maps, so no unit is silent for all of them.
    return kernel - kernel.mean(np.argmax(shape), keepdims=True) if matrix_sides(shape) else kernel


def made_alike(arrays: dict[str, Array], parts: Parts) -> dict[str, Array]:
    """The same value in all arrays that one weight stands for in a CBAM."""
    copies = {name: group[0] for group in parts.copies for name in group[1:]}
    return arrays | {n: arrays[first].reshape(arrays[n].shape) for n, first in copies.items()}


def only(arrays: dict[str, Array], names: Iterable[str], parts: Parts) -> dict[str, Array]:
    """`arrays` with 0 in all that belongs to a CBAM, but for `names`."""
    zero = set(parts.channel + parts.spatial) - set(names)
    return {n: np.zeros_like(array) if n in zero else array for n, array in arrays.items()}
