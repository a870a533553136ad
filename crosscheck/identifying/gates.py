"""Each gate on its own: what it computes, seen while the other gate is at rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from crosscheck.identifying import channel, parting, spatial
from crosscheck.identifying.bench import Bench
from crosscheck.identifying.departure import Departure, PartedError
from crosscheck.identifying.matching import Match, Sight, affine, nearest
from crosscheck.identifying.parts import Parts
from crosscheck.identifying.roles import channel_roles, likeliest, spatial_roles

# A norm's epsilon is measured when all else is known; until then it may be off by this much.
UNKNOWN_EPS = 5e-3


def rest(bench: Bench) -> float:
    """What x is multiplied by with all weights 0; tells a gate from a map on the way.

    Raises:
        PartedError: it is no multiple.
    """
    subject, x = bench.subject, bench.subject.feature_map(3)
    y = subject.output(bench.only(bench.drawn(3), ()), x)
    limit = max(subject.limit, 1e-6)
    ways = [(False, y / x)] if y.shape == x.shape else []
    for is_gate, multiple in (*ways, (True, y)):
        if np.ptp(multiple) <= limit * np.abs(multiple).max():
            value = float(multiple.mean())
            subject.is_gate = is_gate
            # No gate is above 1, and with its weights 0 no two of them make 1 together.
            subject.adds_input = not is_gate and value > 1 + limit
            return value - subject.adds_input
    raise PartedError(
        Departure("refined map", "with all weights 0 it returns no multiple of its input")
    )


def channel_gate(bench: Bench, at_rest: float) -> tuple[Match, list[Departure]]:
    """The nearest reading of the channel gate that a spec can say, and where it leaves that."""
    subject, parts = bench.subject, bench.parts
    sight = bench.sight(parts.channel, at_rest, channel.describe)
    shape = (subject.channels, subject.rank)
    ways = list(channel_roles(parts))
    match = nearest(channel.known(ways, *shape), sight)
    copies = _copies(parts, match.reading.pools)
    if sight.is_dark or match.error <= sight.limit:
        return match, copies + match.reading.departures()
    other = nearest(channel.departed(ways, *shape), sight)
    if other.error <= sight.limit:
        return _plain(other), copies + other.reading.departures()
    known = list(channel.known(ways, *shape))
    match, departure = _part(bench, match, sight, known, parting.CHANNEL)
    return match, [*copies, departure]


def _copies(parts: Parts, pools: tuple[str, ...]) -> list[Departure]:
    """Where what a CBAM has once is there for each pool."""
    if not parts.copies:
        return []
    shared = len(parts.first) == 1 or len(parts.second) == 1
    what = "last layers" if shared else "MLPs"
    return [Departure("hidden layer", f"separate {what} for {' and '.join(pools)}")]


def spatial_gate(bench: Bench, at_rest: float) -> tuple[Match, list[Departure]]:
    """The same of the spatial gate, with its norm's epsilon."""
    parts = bench.parts
    sight = bench.sight(parts.spatial, at_rest, spatial.Described)
    shape = (bench.subject.size, parts.maps)
    ways = list(spatial_roles(parts))
    if not ways:
        names = ", ".join(parts.scalars)
        raise PartedError(
            Departure("weights", f"no spatial gate has {len(parts.scalars)} scalars: {names}")
        )
    if any(map(spatial.has_norm, ways)):
        sight.limit = max(sight.limit, UNKNOWN_EPS)
    match = nearest(spatial.known(ways, *shape), sight)
    if sight.is_dark:
        return match, []
    if match.error <= sight.limit:
        return _with_eps(bench, match), match.reading.departures()
    ways = likeliest(ways)
    other = nearest(spatial.departed(ways, *shape), sight)
    if other.error <= sight.limit:
        return _plain(other), other.reading.departures()
    known = list(spatial.known(ways, *shape))
    match, departure = _part(bench, match, sight, known, parting.SPATIAL)
    return match, [departure]


def _plain(match: Match) -> Match:
    """With what a CBAM has in the place of the departures."""
    return dataclasses.replace(match, reading=match.reading.without_departures())


def _part(
    bench: Bench, match: Match, sight: Sight, readings: list[Any], place: parting.Place
) -> tuple[Match, Departure]:
    """The nearest of a gate that is none that is known, and the first point at which it parts."""
    found = affine(readings, sight)
    if found is not None:
        match, added = found
        words = f"its {place.name} gate g enters as {match.factor:.3g} g + {added:.3g}"
        return match, Departure("refined map", words)
    gates = parting.possible_gates(bench, match, place)
    if gates:
        match = nearest((one for one in readings if one.gate in gates), sight)
    return match, parting.first_point(bench, match, place, gates)


def _with_eps(bench: Bench, match: Match) -> Match:
    """The match, with the epsilon that the norm has."""
    reading = match.reading
    if not spatial.has_norm(reading.roles) or "spatial.norm.var" not in reading.roles:
        return match
    eps = parting.norm_eps(bench, match)
    return dataclasses.replace(match, reading=dataclasses.replace(reading, norm_eps=eps))
