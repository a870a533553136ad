"""Counted work: the bytes that each primitive has to move, from the shape of the map.

A clock on a busy machine is noisy; these numbers are not. x is read for the statistics over space,
again for those over channels, and again to be scaled, since each of them needs the result of the
one before it; y is written. Backward each primitive reads x and the gradient that it is handed, and
the last of them writes that of x. Nothing else is large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Moved:
    """Bytes that a primitive reads and writes."""

    reads: int
    writes: int

    @property
    def total(self) -> int:
        return self.reads + self.writes


@dataclass(frozen=True)
class _Sizes:
    """Bytes of a map, of a number for each sample and channel, and of one for each position."""

    x: int
    channel: int
    spatial: int

    @classmethod
    def of(cls, shape: tuple[int, ...], item_size: int) -> _Sizes:
        # Statistics and gates have at least the precision of float32.
        batch, channels, *space = shape
        small = max(4, item_size)
        sizes = (math.prod(shape) * item_size, batch * channels * small)
        return cls(*sizes, batch * math.prod(space) * small)


def forward(shape: tuple[int, ...], item_size: int) -> dict[str, Moved]:
    """Primitive -> what it moves of an x (N, C, *S) of so many bytes an item.

    >>> {name: moved.total for name, moved in forward((1, 8, 2, 2), 4).items()}
    {'pool_space': 192, 'pool_channels': 192, 'scale': 304}
    """
    size = _Sizes.of(shape, item_size)
    return {
        "pool_space": Moved(size.x, 2 * size.channel),
        "pool_channels": Moved(size.x + size.channel, 2 * size.spatial),
        "scale": Moved(size.x + size.channel + size.spatial, size.x),
    }


def backward(shape: tuple[int, ...], item_size: int) -> dict[str, Moved]:
    """Primitive -> what its gradient moves, with maxima and their ties found anew."""
    size = _Sizes.of(shape, item_size)
    gates = size.channel + size.spatial
    return {
        "scale": Moved(2 * size.x + gates, gates),
        "pool_channels": Moved(2 * size.x + size.channel + 4 * size.spatial, size.channel),
        "pool_space": Moved(2 * size.x + 4 * size.channel, size.x),
    }


def total(kind: str, shape: tuple[int, ...], item_size: int) -> int:
    """The bytes of a pass, "forward" or "training"."""
    passes = [forward] if kind == "forward" else [forward, backward]
    return sum(moved.total for one in passes for moved in one(shape, item_size).values())
