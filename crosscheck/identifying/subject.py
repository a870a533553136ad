"""A live module as a function of NumPy arrays (N, *S, C), whatever its layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]

BATCH = 6
# What may be left, relative to the largest value: rounding, and no more.
LIMITS = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


@dataclass
class Subject:
    """A module, and how it is called.

    Attributes:
        probe, module: the framework's functions, and what they are applied to.
        channels, rank, channels_first: of its feature maps.
        size: of the maps that it is probed with.
        dtype: that it computes in.
        index: which of the arrays that it returns is looked at.
        is_gate: whether that is a gate, and not the refined map.
        adds_input: whether the refined map has the input added to it.
        shapes: of all weights and statistics, by name.
    """

    probe: ModuleType
    module: Any
    channels: int
    rank: int
    channels_first: bool
    size: tuple[int, ...] = ()
    dtype: str = "float32"
    index: int = 0
    is_gate: bool = False
    adds_input: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def digits(self) -> int:
        """How many of a measured number can be trusted."""
        return 3 if self.limit < 1e-3 else 1

    @property
    def limit(self) -> float:
        return LIMITS[self.dtype]

    def outputs(self, arrays: Arrays, x: np.ndarray, training: bool = False) -> list[Any]:
        """What it returns with these weights: arrays that (N, *S, C) broadcasts to, or None."""
        self.probe.assign(self.module, arrays)
        returned = self.probe.call(self.module, self.native(x), training)
        return [self.canonical(array, x.shape) for array in returned]

    def output(self, arrays: Arrays, x: np.ndarray, training: bool = False) -> np.ndarray:
        """The array that is looked at."""
        return self.outputs(arrays, x, training)[self.index]

    def gate(self, arrays: Arrays, x: np.ndarray) -> np.ndarray:
        """What x is multiplied by, all gates together, (N, *S, C); x has no 0."""
        y = self.output(arrays, x)
        gate = y if self.is_gate else y / x - self.adds_input
        return np.broadcast_to(gate, x.shape)

    def gradient(self, arrays: Arrays, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """Of sum(output * cotangent) by x; the cotangent has the shape of the output."""
        self.probe.assign(self.module, arrays)
        native = self.native(x)
        returned = self.probe.call(self.module, native, False)[self.index]
        shaped = self.native(cotangent) if returned.ndim == x.ndim else cotangent
        by_x = self.probe.gradient(self.module, native, self.index, shaped.reshape(returned.shape))
        return np.moveaxis(by_x, 1, -1) if self.channels_first else by_x

    def is_same(self, found: np.ndarray, expected: np.ndarray) -> bool:
        """Whether nothing but rounding is between them; NaN differs from nothing."""
        if np.isnan(expected).any() or np.isnan(found).any():
            return np.array_equal(found, expected, equal_nan=True)
        return bool(np.abs(found - expected).max() <= self.limit * np.abs(expected).max())

    def native(self, x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, -1, 1) if self.channels_first else x

    def canonical(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """A map or gate of maps of `shape`, as (N, *S or 1.., C or 1); None if it is neither."""
        if array.shape == (shape[0], shape[-1]):
            return array.reshape(shape[0], *[1] * self.rank, shape[-1])
        if array.shape == shape[:-1]:
            return array[..., None]
        if array.ndim != len(shape):
            return None
        moved = np.moveaxis(array, 1, -1) if self.channels_first else array
        fits = moved.shape[0] == shape[0] and all(
            own in (1, whole) for own, whole in zip(moved.shape, shape, strict=True)
        )
        return moved if fits and math.prod(moved.shape[1:]) > 1 else None

    def feature_map(self, seed: int) -> np.ndarray:
        """(N, *S, C) without a 0, of which the means are far apart and the maxima stand out."""
        rng = np.random.default_rng([seed, 23])
        x = rng.standard_normal((BATCH, *self.size, self.channels))
        x += rng.standard_normal((BATCH, *self.size, 1))
        x += 2 * rng.standard_normal((BATCH, *[1] * self.rank, self.channels))
        x = np.where(x < 0, -1.0, 1.0) * (0.3 + np.abs(x))
        # A half precision would round some maxima to the value next to them.
        for axes in (tuple(range(1, self.rank + 1)), -1):
            x += x == x.max(axes, keepdims=True)
        return np.where(x == 0, 1.0, x)
