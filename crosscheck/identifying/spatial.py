"""Readings of a spatial gate: gate( norm( conv [avg over channels ; max over channels] + b ) )."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from crosscheck.identifying.departure import Departure
from crosscheck.identifying.descriptors import LIGHT, PADDINGS, SQUEEZED, SUM, ZEROS, Described
from crosscheck.identifying.functions import (
    ACTIVATIONS,
    GATES,
    OTHER_GATES,
    OTHER_POOLS,
    POOLS,
)
from crosscheck.identifying.roles import Roles

Array = np.ndarray

NONE = "nothing"


@dataclass(frozen=True, eq=False)
class SpatialReading:
    """One way to compute a spatial gate; the defaults are the paper's.

    `maps` are what the convolution reads, in its order; `behind` is what follows it and its norm.
    """

    roles: Roles
    shape: tuple[int, ...]
    maps: tuple[str, ...] = ("avg", "max")
    padding: str = ZEROS
    batch_statistics: bool = False
    behind: str = NONE
    gate: str = "sigmoid"
    norm_eps: float = 1e-5

    @property
    def is_pooled(self) -> bool:
        return self.maps != (SQUEEZED,)

    @property
    def is_light(self) -> bool:
        return len(self.maps) == 1 and self.is_pooled

    @property
    def is_usual(self) -> bool:
        return True

    @property
    def at_rest(self) -> float:
        return float(_GATES[self.gate](np.zeros((1, *self.shape, 1))).flat[0])

    def predict(self, weights: dict[str, Array], described: Described) -> Array:
        """The gate (N, *S, 1)."""
        return _GATES[self.gate](self.logits(weights, described))

    def logits(self, weights: dict[str, Array], described: Described) -> Array:
        """What the gate function gets (N, *S, 1)."""
        logits = self.norm(described.convolved(self.maps, weights, self.padding), weights)
        return logits if self.behind == NONE else ACTIVATIONS[self.behind](logits)

    def norm(self, x: Array, weights: dict[str, Array]) -> Array:
        x = x + weights.get("spatial.conv.bias", 0.0)
        if not has_norm(self.roles):
            return x
        mean, var = weights.get("spatial.norm.mean"), weights.get("spatial.norm.var")
        if self.batch_statistics or mean is None or var is None:
            mean, var = x.mean(), x.var()
        scale, bias = (weights.get(f"spatial.norm.{n}", d) for n, d in (("scale", 1), ("bias", 0)))
        return (x - mean) / np.sqrt(var + self.norm_eps) * scale + bias

    def without_departures(self) -> SpatialReading:
        """What it would be if it were a CBAM's."""
        plain = ("avg", "max") if len(self.maps) == 2 else (LIGHT,)
        return SpatialReading(
            self.roles,
            self.shape,
            self.maps if self.maps in _KNOWN_MAPS else plain,
            gate=self.gate if self.gate in GATES else "sigmoid",
            norm_eps=self.norm_eps,
        )

    def departures(self) -> list[Departure]:
        found = []
        if self.maps not in _KNOWN_MAPS:
            words = f"its spatial gate reads {' and '.join(self.maps)} over the channels"
            found.append(Departure("spatial descriptor", words))
        if self.padding != ZEROS:
            words = f"its spatial gate pads with {self.padding}, not with zeros"
            found.append(Departure("spatial convolution", words))
        if has_norm(self.roles) and (
            "spatial.norm.mean" not in self.roles or self.batch_statistics
        ):
            words = "its norm takes the batch's statistics in evaluation, too"
            found.append(Departure("spatial convolution", words))
        if self.behind != NONE:
            words = f"its spatial gate has {self.behind} before the gate function"
            found.append(Departure("spatial convolution", words))
        if self.gate in OTHER_GATES:
            found.append(Departure("spatial gate", f"its spatial gate is {self.gate}"))
        return found


Readings = Iterator[SpatialReading]

_GATES = GATES | OTHER_GATES
_TWO_MAPS = (("avg", "max"), ("max", "avg"))
_KNOWN_MAPS = (*_TWO_MAPS, (LIGHT,), (SQUEEZED,))


def has_norm(roles: Roles) -> bool:
    return any(name.startswith("spatial.norm.") for name in roles)


def known(ways_to_read: Iterable[Roles], shape: tuple[int, ...], maps: int) -> Readings:
    """All that a CBAMSpec can say, the paper's first; `maps` is what the kernel takes."""
    for roles in ways_to_read:
        one = (SQUEEZED,) if "spatial.squeeze.kernel" in roles else (LIGHT,)
        for read, gate in itertools.product(_TWO_MAPS if maps == 2 else (one,), GATES):
            yield SpatialReading(roles, shape, read, gate=gate)


def departed(ways_to_read: Iterable[Roles], shape: tuple[int, ...], maps: int) -> Readings:
    """What leaves a CBAMSpec at one point."""
    for reading in known(ways_to_read, shape, maps):
        for padding in PADDINGS:
            yield replace(reading, padding=padding)
        for behind in ACTIVATIONS:
            yield replace(reading, behind=behind)
        if has_norm(reading.roles):
            yield replace(reading, batch_statistics=True)
        for gate in OTHER_GATES if reading.gate == "sigmoid" else ():
            yield replace(reading, gate=gate)
        for others in _other_maps(reading.maps):
            yield replace(reading, maps=others)


def _other_maps(maps: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    pools = (*POOLS, *OTHER_POOLS)
    if maps == ("avg", "max"):
        yield from itertools.product(("avg", "max"), pools)
        yield from itertools.product(pools, ("avg", "max"))
    elif maps == (LIGHT,):
        yield from ((pool,) for pool in (*pools, SUM))
