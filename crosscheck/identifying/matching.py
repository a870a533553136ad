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

    @property
    def is_dark(self) -> bool:
        """Whether the other gate is 0 at rest, so that nothing is seen."""
        return all(np.abs(gate).max() < 1e-12 for gate in self.gates)

    def predictions(self, reading: Reading, scale: float) -> list[Array]:
        return [
            reading.predict(read(reading.roles, arrays), self.described(number, scale))
            for number, (arrays, _, _) in enumerate(self.passes)
        ]


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
    factor = sight.rest / reading.at_rest if reading.at_rest else np.nan
    expected = 1.0 if sight.alone else reading.at_rest
    is_consistent = bool(abs(factor - expected) < max(sight.limit, 1e-3))
    for scale in (1.0,) if sight.alone or not is_consistent else (1.0, factor):
        predictions = sight.predictions(reading, scale)
        fitted = factor if reading.at_rest else _fit(predictions, sight.gates)
        error = _error([fitted * p for p in predictions], sight.gates)
        yield Match(reading, error, fitted, scale, is_consistent)


def affine(readings: Iterable[Reading], sight: Sight) -> tuple[Match, float] | None:
    """A reading of which the gate is seen with something added to it, and that something."""
    for reading in readings:
        predictions = sight.predictions(reading, 1.0)
        spread = [np.broadcast_arrays(p, g) for p, g in zip(predictions, sight.gates, strict=True)]
        predicted = np.concatenate([p.ravel() for p, _ in spread])
        seen = np.concatenate([g.ravel() for _, g in spread])
        columns = np.stack([predicted, np.ones_like(predicted)], 1)
        (factor, added), *_ = np.linalg.lstsq(columns, seen, rcond=None)
        error = _error([factor * predicted + added], [seen])
        if error <= sight.limit:
            return Match(reading, error, float(factor), 1.0, False), float(added)
    return None


def _fit(predictions: list[Array], gates: list[Array]) -> float:
    pairs = [np.broadcast_arrays(p, g) for p, g in zip(predictions, gates, strict=True)]
    square = sum(float((p * p).sum()) for p, _ in pairs)
    return sum(float((p * g).sum()) for p, g in pairs) / square if square else 0.0


def _error(predictions: list[Array], gates: list[Array]) -> float:
    """The largest difference, relative to the largest value; infinite where one is NaN."""
    with np.errstate(all="ignore"):
        off = max(np.abs(p - g).max() for p, g in zip(predictions, gates, strict=True))
        largest = max(np.abs(g).max() for g in gates)
        relative = off / largest if off else 0.0
    return float(relative) if np.isfinite(relative) else np.inf


def _thin(gate: Array, limit: float) -> Array:
    """One position, or one channel, of a gate that is the same at all of them."""
    for axis in range(1, gate.ndim):
        if np.ptp(gate, axis).max() <= limit * np.abs(gate).max():
            gate = gate.take([0], axis)
    return gate
