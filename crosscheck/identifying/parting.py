"""The first point at which a gate parts from the equations, where no function that is known fits.

Maps and weights are chosen so that a CBAM's gate must stay as it is, or change in a known way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from crosscheck.identifying.bench import Bench
from crosscheck.identifying.departure import Departure
from crosscheck.identifying.descriptors import Described
from crosscheck.identifying.functions import GATES, inverse
from crosscheck.identifying.matching import Match
from crosscheck.identifying.roles import read

Array = np.ndarray

# Logits are read off a gate, where it is flat with few digits.
ROUGHLY = 1e-2


@dataclass(frozen=True)
class Place:
    """One of both gates.

    Attributes:
        name: "channel" or "spatial".
        over: what its descriptors pool over.
        behind: the point between its descriptors and its gate function.
        linear: the weight in which its logits are linear.
    """

    name: str
    over: str
    behind: str
    linear: str


CHANNEL = Place("channel", "the positions", "hidden layer", "channel.expand.kernel")
SPATIAL = Place("spatial", "the channels", "spatial convolution", "spatial.conv.kernel")


def first_point(bench: Bench, match: Match, place: Place, gates: list[str]) -> Departure:
    """Its descriptor, what is behind that, or the gate function, if it has none of `gates`."""
    reads_pools = "spatial.squeeze.kernel" not in match.reading.roles
    for x, words in _same_to_pools(bench, place) if reads_pools else ():
        if not _keeps_the_gate(bench, place, x):
            words = f"its {place.name} gate changes where {words}"
            return Departure(f"{place.name} descriptor", words)
    if gates:
        return Departure(place.behind, f"its {place.behind} is none that is known")
    words = f"its {place.name} gate is none of {', '.join(GATES)}"
    return Departure(f"{place.name} gate", words)


def possible_gates(bench: Bench, match: Match, place: Place) -> list[str]:
    """The gate functions that it may have, by how it answers to greater logits."""
    return [gate for gate in GATES if _doubles(bench, match, place, gate)]


def _same_to_pools(bench: Bench, place: Place) -> Iterator[tuple[Array, str]]:
    """Maps of which avg and max over space, or over the channels, are those of `_probe`."""
    x = _probe(bench)
    flat = x.reshape(len(x), -1, x.shape[-1])
    axis = 1 if place is CHANNEL else 2
    yield np.flip(flat, axis).reshape(x.shape), f"{place.over} of the map change places"
    lowest, second = np.moveaxis(np.argsort(flat, axis), axis, 0)[:2]
    lowest, second = np.expand_dims(lowest, axis), np.expand_dims(second, axis)
    by = (flat.max(axis, keepdims=True) - np.take_along_axis(flat, second, axis)) / 4
    moved = flat.copy()
    np.put_along_axis(moved, lowest, np.take_along_axis(flat, lowest, axis) - by, axis)
    np.put_along_axis(moved, second, np.take_along_axis(flat, second, axis) + by, axis)
    yield moved.reshape(x.shape), f"avg and max over {place.over} stay as they are"


def _probe(bench: Bench) -> Array:
    return bench.subject.feature_map(7)


def _keeps_the_gate(bench: Bench, place: Place, x: Array) -> bool:
    arrays, names = bench.drawn(7, 0.3), getattr(bench.parts, place.name)
    before, after = (bench.look(arrays, one, names) for one in (_probe(bench), x))
    return bench.subject.is_same(after, before)


def _doubles(bench: Bench, match: Match, place: Place, gate: str) -> bool:
    """Whether the logits, read off `gate`, double with the weight in which they are linear."""
    factor = match.factor * match.reading.at_rest / float(GATES[gate](np.zeros(1))[0])
    arrays = _without_biases(bench, match, 0.3)
    names = getattr(bench.parts, place.name)
    twice = arrays | {n: 2 * arrays[n] for n in match.reading.roles[place.linear].names}
    with np.errstate(all="ignore"):
        once, double = (
            inverse(gate, bench.look(weights, _probe(bench), names) / factor)
            for weights in (arrays, twice)
        )
    seen = np.isfinite(once + double)
    if not seen.any():
        return False
    off = np.abs(double - 2 * once)[seen].max()
    return bool(off <= ROUGHLY * np.abs(double[seen]).max())


def _without_biases(bench: Bench, match: Match, gain: float) -> dict[str, Array]:
    arrays = bench.drawn(7, gain)
    places = match.reading.roles
    shifts = [n for role in places if role.endswith((".bias", ".mean")) for n in places[role].names]
    return arrays | {name: np.zeros_like(arrays[name]) for name in shifts}


def norm_eps(bench: Bench, match: Match) -> float:
    """What the norm adds to the variance: with a variance of 0 it alone scales the logits."""
    reading, x = match.reading, _probe(bench)
    arrays = _without_biases(bench, match, 0.1)
    arrays |= {n: np.zeros_like(arrays[n]) for n in reading.roles["spatial.norm.var"].names}
    (kernel,) = reading.roles["spatial.conv.kernel"].names
    for power in range(12):
        weaker = arrays | {kernel: arrays[kernel] * 10.0**-power}
        gate = bench.look(weaker, x, bench.parts.spatial)[..., :1] / match.factor
        with np.errstate(all="ignore"):
            logits = inverse(reading.gate, gate)
        if np.isfinite(logits).mean() > 0.5:
            unit = dataclasses.replace(reading, norm_eps=1.0)
            described = Described(x * match.scale)
            convolved = unit.logits(read(reading.roles, weaker), described)
            large = np.isfinite(logits) & (np.abs(logits) > np.nanmedian(np.abs(logits)))
            measured = float(np.median((convolved / logits)[large] ** 2))
            return float(f"{measured:.{bench.subject.digits}g}")
    return 0.0
