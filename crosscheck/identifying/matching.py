"""Readings of a gate, compared with what was seen of it while the other gate was at rest.

With all weights 0 a gate is a constant, gate(0). So one gate alone is seen, times the other's
constant, where the other's weights are 0; and the gate's own input is the map, or the map times
that constant if the other gate comes first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from crosscheck.identifying.departure import Departure
from crosscheck.identifying.roles import Roles, read

Array = np.ndarray


class Reading(Protocol):
    """A way in which a gate may be computed."""

    @property
    def roles(self) -> Roles: ...

    @property
    def gate(self) -> str: ...

    @property
    def is_usual(self) -> bool:
        """Whether public copies compute it so, and not only this project's specs."""
        ...

    @property
    def at_rest(self) -> float:
        """The gate where all weights are 0."""
        ...

    def predict(self, weights: dict[str, Array], described: Any) -> Array:
        """The gate, which (N, *S, C) broadcasts to."""
        ...

    def departures(self) -> list[Departure]:
        """Where it is no CBAM's."""
        ...


@dataclass
class Sight:
    """What was seen of one gate.

    Attributes:
        passes: weights by the module's names, x, and what x was multiplied by.
        rest: the same with all weights 0.
        alone: whether the module has no other gate.
        limit: what may differ, relative to the largest value.
        describe: the descriptors of a map, from which a reading predicts.
    """

    passes: list[tuple[dict[str, Array], Array, Array]]
    rest: float
    alone: bool
    limit: float
    describe: Callable[[Array], Any]

    def __post_init__(self) -> None:
        self.described = functools.cache(
            lambda number, scale: self.describe(self.passes[number][1] * scale)
        )
        self.gates = [_thin(gate, self.limit) for _, _, gate in self.passes]
        self.largest = max(float(np.abs(gate).max()) for gate in self.gates)

    @property
    def is_dark(self) -> bool:
        """Whether the other gate is 0 at rest, so that nothing is seen."""
        return self.largest < 1e-12

    def prediction(self, reading: Reading, number: int, scale: float) -> Array:
        """The gate of one pass."""
        weights = read(reading.roles, self.passes[number][0])
        return reading.predict(weights, self.described(number, scale))

    def compare(self, reading: Reading, factor: float | None, scale: float) -> tuple[float, float]:
        """How far a reading is off, and the other gate at rest, measured if `factor` is None.

        Most readings are far off in the first pass, and need no other.
        """
        error = 0.0
        for number, gate in enumerate(self.gates):
            predicted = self.prediction(reading, number, scale)
            factor = _fit(predicted, gate) if factor is None else factor
            error = max(error, _error(factor * predicted, gate, self.largest))
            if error > self.limit:
                break
        assert factor is not None
        return error, factor


@dataclass(frozen=True)
class Match:
    """A reading, how far it is off, and what else was measured.

    Attributes:
        error: relative to the largest value.
        factor: the other gate at rest.
        scale: what the gate's input is, times the map.
        is_consistent: whether both gates are at rest as one gate function is.
    """

    reading: Any
    error: float
    factor: float
    scale: float
    is_consistent: bool


def nearest(readings: Iterable[Reading], sight: Sight) -> Match:
    """The reading that fits; if none does, the nearest of those that would be consistent."""
    matches = (match for reading in readings for match in _matches(reading, sight))

    def merit(match: Match) -> tuple[bool, bool, bool, float]:
        fits = match.error <= sight.limit
        is_odd = not fits and not match.reading.is_usual
        return not fits, not match.is_consistent, is_odd, match.error

    return min(matches, key=merit)


def _matches(reading: Reading, sight: Sight) -> Iterable[Match]:
    factor = sight.rest / reading.at_rest if reading.at_rest else None
    expected = 1.0 if sight.alone else reading.at_rest
    is_consistent = factor is not None and abs(factor - expected) < max(sight.limit, 1e-3)
    # A gate that is 0 at rest does not tell the other one, which for a sigmoid is 0.5.
    for scale in (1.0,) if sight.alone else (1.0, factor or 0.5):
        error, measured = sight.compare(reading, factor, scale)
        yield Match(reading, error, measured, scale, is_consistent)


def affine(readings: Iterable[Reading], sight: Sight) -> tuple[Match, float] | None:
    """A reading of which the gate is seen with something added to it, and that something."""
    numbers = range(len(sight.gates))
    for reading in readings:
        pairs = [(sight.prediction(reading, n, 1.0), sight.gates[n]) for n in numbers]
        predicted, seen = (
            np.concatenate([array.ravel() for array in arrays])
            for arrays in zip(*(np.broadcast_arrays(*pair) for pair in pairs), strict=True)
        )
        columns = np.stack([predicted, np.ones_like(predicted)], 1)
        (factor, added), *_ = np.linalg.lstsq(columns, seen, rcond=None)
        error = _error(factor * predicted + added, seen, sight.largest)
        if error <= sight.limit:
            return Match(reading, error, float(factor), 1.0, False), float(added)
    return None


def _fit(predicted: Array, gate: Array) -> float:
    """The factor with which `predicted` is nearest to `gate`."""
    predicted, gate = np.broadcast_arrays(predicted, gate)
    square = float((predicted * predicted).sum())
    return float((predicted * gate).sum()) / square if square else 0.0


def _error(predicted: Array, gate: Array, largest: float) -> float:
    """The largest difference, relative to `largest`; infinite where one is NaN."""
    with np.errstate(all="ignore"):
        off = np.abs(predicted - gate).max()
        relative = off / largest if off else 0.0
    return float(relative) if np.isfinite(relative) else np.inf


def _thin(gate: Array, limit: float) -> Array:
    """One position, or one channel, of a gate that is the same at all of them."""
    for axis in range(1, gate.ndim):
        if np.ptp(gate, axis).max() <= limit * np.abs(gate).max():
            gate = gate.take([0], axis)
    return gate
