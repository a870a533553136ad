"""Readings of a channel gate: gate( sum over the pools of W1 relu(W0 pool + b0) + b1 )."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from crosscheck.identifying.departure import Departure
from crosscheck.identifying.functions import (
    ACTIVATIONS,
    GATES,
    OTHER_GATES,
    OTHER_POOLS,
    POOLS,
    RELU,
)
from crosscheck.identifying.roles import Roles

Array = np.ndarray
Curve = Callable[[Array], Array]


def _sum(arrays: Iterable[Array]) -> Array:
    return np.sum(list(arrays), axis=0)


SEPARATE, LIGHT = "separate", "light"
# How several pools become one gate, by the MLP and the gate function.
WAYS: dict[str, Callable[[list[Array], Curve, Curve], Array]] = {
    SEPARATE: lambda pools, mlp, gate: gate(_sum(map(mlp, pools))),
    LIGHT: lambda pools, mlp, gate: gate(mlp(_sum(pools) / len(pools))),
}
OTHER_WAYS: dict[str, tuple[str, Callable[[list[Array], Curve, Curve], Array]]] = {
    "its pools are summed before the MLP": (
        "channel descriptor",
        lambda pools, mlp, gate: gate(mlp(_sum(pools))),
    ),
    "it takes the mean of the pools' logits, not their sum": (
        "channel gate",
        lambda pools, mlp, gate: gate(_sum(map(mlp, pools)) / len(pools)),
    ),
    "it sums the gates of the pools, not their logits": (
        "channel gate",
        lambda pools, mlp, gate: _sum(gate(mlp(pool)) for pool in pools),
    ),
    "it takes the mean of the gates of the pools, not the gate of their sum": (
        "channel gate",
        lambda pools, mlp, gate: _sum(gate(mlp(pool)) for pool in pools) / len(pools),
    ),
    "it multiplies the gates of the pools": (
        "channel gate",
        lambda pools, mlp, gate: np.prod([gate(mlp(pool)) for pool in pools], axis=0),
    ),
}
USUAL = (("avg", "max"), ("avg",), ("max",))
_WAYS = WAYS | {words: way for words, (_, way) in OTHER_WAYS.items()}


@dataclass(frozen=True, eq=False)
class ChannelReading:
    """One way to compute a channel gate; the defaults are the paper's."""

    roles: Roles
    channels: int
    rank: int
    pools: tuple[str, ...] = ("avg", "max")
    way: str = SEPARATE
    activation: str = RELU
    gate: str = "sigmoid"

    @property
    def has_hidden_layer(self) -> bool:
        return "channel.reduce.kernel" in self.roles

    @property
    def is_light(self) -> bool:
        return self.way == LIGHT

    @property
    def is_usual(self) -> bool:
        return self.pools in USUAL

    @property
    def at_rest(self) -> float:
        zeros = [np.zeros((1, self.channels))] * len(self.pools)
        return float(_WAYS[self.way](zeros, lambda v: v, _GATES[self.gate]).flat[0])

    def predict(self, weights: dict[str, Array], described: dict[str, Array]) -> Array:
        """The gate (N, 1.., C)."""
        pools = [described[pool] for pool in self.pools]
        gate = _WAYS[self.way](pools, lambda v: self.mlp(v, weights), _GATES[self.gate])
        return gate.reshape(len(gate), *[1] * self.rank, -1)

    def mlp(self, v: Array, weights: dict[str, Array]) -> Array:
        if self.has_hidden_layer:
            before = v @ weights["channel.reduce.kernel"] + weights.get("channel.reduce.bias", 0.0)
            v = ACTIVATIONS[self.activation](before)
        return v @ weights["channel.expand.kernel"] + weights.get("channel.expand.bias", 0.0)

    def without_departures(self) -> ChannelReading:
        """What it would be if it were a CBAM's."""
        spare = "max" if "avg" in self.pools else "avg"
        pools = tuple(pool if pool in POOLS else spare for pool in self.pools)
        way = self.way if self.way in WAYS else SEPARATE
        gate = self.gate if self.gate in GATES else "sigmoid"
        return replace(self, pools=pools, way=way, activation=RELU, gate=gate)

    def departures(self) -> list[Departure]:
        found = []
        if set(self.pools) - set(POOLS):
            words = f"its channel gate pools {' and '.join(self.pools)}"
            found.append(Departure("channel descriptor", words))
        if self.way in OTHER_WAYS:
            found.append(Departure(OTHER_WAYS[self.way][0], self.way))
        if not self.has_hidden_layer:
            alone = f", and pools {self.pools[0]} alone" if len(self.pools) == 1 else ""
            words = f"its channel gate has no hidden layer{alone}"
            found.append(Departure("hidden layer", words))
        elif self.activation != RELU:
            words = f"its hidden layer has {self.activation} for relu"
            found.append(Departure("hidden layer", words))
        if self.gate in OTHER_GATES:
            found.append(Departure("channel gate", f"its channel gate is {self.gate}"))
        return found


_GATES = GATES | OTHER_GATES


def describe(x: Array) -> dict[str, Array]:
    """Every pool of x (N, *S, C) over space: (N, C)."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    return {name: pool(flat, 1) for name, pool in (POOLS | OTHER_POOLS).items()}


def known(ways_to_read: Iterable[Roles], channels: int, rank: int) -> Iterator[ChannelReading]:
    """All that a CBAMSpec can say, the paper's first."""
    sizes = (2, 1, 3, 4)
    subsets = [pools for size in sizes for pools in itertools.combinations(POOLS, size)]
    for roles, pools, gate in itertools.product(list(ways_to_read), subsets, GATES):
        yield ChannelReading(roles, channels, rank, pools, gate=gate)
        if len(pools) > 1:
            yield ChannelReading(roles, channels, rank, pools, LIGHT, gate=gate)


def departed(ways_to_read: Iterable[Roles], channels: int, rank: int) -> Iterator[ChannelReading]:
    """What leaves a CBAMSpec at one point."""
    for reading in known(ways_to_read, channels, rank):
        if not reading.is_usual:
            continue
        for activation in ACTIVATIONS:
            yield replace(reading, activation=activation)
        if reading.way == SEPARATE and len(reading.pools) > 1:
            for way in OTHER_WAYS:
                yield replace(reading, way=way)
        if reading.gate == "sigmoid":
            for gate in OTHER_GATES:
                yield replace(reading, gate=gate)
        if reading.pools == ("avg", "max"):
            for other in OTHER_POOLS:
                for pools in ((other,), ("avg", other), (other, "max")):
                    yield replace(reading, pools=pools)
