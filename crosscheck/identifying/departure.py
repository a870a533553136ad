"""Where a module leaves the equations."""

from __future__ import annotations

from dataclasses import dataclass

# The points of a CBAM at which a module may part from it, in the order of the equations.
POINTS = (
    "weights",
    "channel descriptor",
    "hidden layer",
    "channel gate",
    "spatial descriptor",
    "spatial convolution",
    "spatial gate",
    "refined map",
    "gradient",
    "training pass",
)


@dataclass(frozen=True)
class Departure:
    """One place where a module is no CBAM.

    Attributes:
        point: one of `POINTS`.
        words: what it does there, to be read after "not a CBAM: ".
    """

    point: str
    words: str

    def __post_init__(self) -> None:
        assert self.point in POINTS, self.point


class PartedError(Exception):
    """A module that parts from every CBAM so early that there is nothing more to compare."""

    def __init__(self, *departures: Departure) -> None:
        super().__init__(*departures)
        self.departures = departures
