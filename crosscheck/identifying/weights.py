"""What a module's arrays are for: which have an effect at all, and which gate they belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from crosscheck.identifying.departure import Departure, PartedError
from crosscheck.identifying.draws import GAINS, draw, only
from crosscheck.identifying.parts import Parts, sort
from crosscheck.identifying.shapes import is_kernel, listed, matrix_sides
from crosscheck.identifying.subject import Subject

Array = np.ndarray


def take_apart(subject: Subject) -> tuple[Parts, list[Departure], list[str]]:
    """The arrays that have an effect, sorted; where they are no CBAM's; and notes.

    Raises:
        PartedError: no CBAM has such arrays.
    """
    passes = [draw(subject.shapes, seed, gain) for seed, gain in enumerate(GAINS)]
    idle = without_effect(subject, passes, subject.shapes)
    departures, notes = _never_applied(subject, idle)
    shapes = {name: shape for name, shape in subject.shapes.items() if name not in idle}
    try:
        parts = sort(shapes, subject.channels)
    except PartedError as parted:
        raise PartedError(*(departures or parted.departures)) from None
    if parts.first and parts.scalars and parts.hidden == 1:
        parts = _with_bias_of_one_unit(subject, parts, passes)
    if parts.left:
        left = listed({name: shapes[name] for name in parts.left})
        departures.append(Departure("weights", f"no CBAM has, besides its weights, {left}"))
    return parts, departures, notes


def without_effect(
    subject: Subject, passes: list[dict[str, Array]], names: Iterable[str]
) -> list[str]:
    """Those of `names` whose values make no difference to the output, whatever the others are."""
    idle, x = list(names), subject.feature_map(1)
    for seed, arrays in enumerate(passes, 20):
        other, y = draw(subject.shapes, seed), subject.output(arrays, x)
        if not subject.is_same(subject.output(arrays, x), y):
            raise PartedError(Departure("refined map", "two passes over the same map differ"))
        idle = [n for n in idle if subject.is_same(subject.output(arrays | {n: other[n]}, x), y)]
    return idle


def _never_applied(subject: Subject, idle: list[str]) -> tuple[list[Departure], list[str]]:
    """Departures for gates without an effect, notes for other arrays without."""
    shapes = {name: subject.shapes[name] for name in idle}
    spatial = [n for n, shape in shapes.items() if is_kernel(shape, subject.channels)]
    channel = [n for n in idle if n not in spatial and subject.channels in matrix_sides(shapes[n])]
    departures = []
    if channel:
        departures.append(Departure("channel gate", "its channel gate is never applied"))
    if spatial:
        departures.append(Departure("spatial gate", "its spatial gate is never applied"))
    others = {n: shape for n, shape in shapes.items() if n not in (*channel, *spatial)}
    if others and not departures:
        return [], [f"without any effect: {listed(others)}"]
    return departures, []


def _with_bias_of_one_unit(subject: Subject, parts: Parts, passes: list[dict[str, Array]]) -> Parts:
    """A scalar that matters while the MLP is 0 is the spatial gate's; else its one unit's bias."""
    inner = without_effect(
        subject, [only(arrays, parts.spatial, parts) for arrays in passes], parts.scalars
    )
    return dataclasses.replace(
        parts,
        vectors=(*inner, *parts.vectors),
        scalars=tuple(name for name in parts.scalars if name not in inner),
    )
