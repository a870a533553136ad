"""What a spatial gate's convolution reads, and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crosscheck.identifying.functions import OTHER_POOLS, POOLS

Array = np.ndarray

LIGHT = "half of avg + max"
SUM = "avg + max"
SQUEEZED = "a 1x1 convolution"
ZEROS = "zeros"
# What NumPy calls what the map is padded with.
PADDINGS = {
    ZEROS: "constant",
    "its own reflection": "reflect",
    "its edge": "edge",
    "its other end": "wrap",
}
_MAPS = (
    POOLS
    | OTHER_POOLS
    | {
        LIGHT: lambda x, axis: (x.mean(axis) + x.max(axis)) / 2,
        SUM: lambda x, axis: x.mean(axis) + x.max(axis),
    }
)


@dataclass
class Described:
    """A map (N, *S, C), and what convolutions made of its descriptors (N, *S).

    A convolution is linear, so each descriptor is convolved with each kernel of one map only once,
    however many readings ask for it.
    """

    x: Array
    done: dict[tuple, Array] = field(default_factory=dict)

    def convolved(self, maps: tuple[str, ...], weights: dict[str, Array], padding: str) -> Array:
        """The convolution of the maps (N, *S, 1)."""
        kernel = weights["spatial.conv.kernel"]
        parts = []
        for place, name in enumerate(maps):
            one = kernel[..., place, 0]
            key = (name, place, padding)
            if key not in self.done:
                self.done[key] = _convolve(self.descriptor(name, weights), one, padding)
            parts.append(self.done[key])
        return np.sum(parts, axis=0)[..., None]

    def descriptor(self, name: str, weights: dict[str, Array]) -> Array:
        if name == SQUEEZED:
            return self.x @ weights["spatial.squeeze.kernel"][:, 0]
        return _MAPS[name](self.x, -1)


def _convolve(x: Array, kernel: Array, padding: str) -> Array:
    """Cross-correlation (N, *S) with (k, ..., k) that keeps the size."""
    half, space = kernel.shape[0] // 2, tuple(range(1, x.ndim))
    mode: dict = {"mode": PADDINGS[padding]}
    padded = np.pad(x, [(0, 0), *[(half, half)] * len(space)], **mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, space)
    return np.tensordot(windows, kernel, kernel.ndim)
