"""A module on the bench: weights are put in, and what it multiplies its input by comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crosscheck.identifying.draws import GAINS, draw, made_alike, only
from crosscheck.identifying.matching import Sight
from crosscheck.identifying.parts import Parts
from crosscheck.identifying.subject import Subject

Array = np.ndarray


@dataclass
class Bench:
    """A module on the bench: its parts, its own weights, and weights to try."""

    subject: Subject
    parts: Parts
    own: dict[str, Array]

    def drawn(self, seed: int, gain: float = 1.0, alike: bool = True) -> dict[str, Array]:
        """Weights to probe with; what belongs to no CBAM stays as it is.

        `alike` gives arrays the same value for which a CBAM has one weight.
        """
        arrays = draw(self.subject.shapes, seed, gain)
        arrays = made_alike(arrays, self.parts) if alike else arrays
        return arrays | {name: self.own[name] for name in self.parts.left}

    def only(self, arrays: dict[str, Array], names: Iterable[str]) -> dict[str, Array]:
        return only(arrays, names, self.parts)

    def look(self, arrays: dict[str, Array], x: Array, names: Iterable[str]) -> Array:
        """What x is multiplied by where all but `names` is 0."""
        return self.subject.gate(self.only(arrays, names), x)

    def sight(self, names: Iterable[str], rest: float, describe: Callable[[Array], Any]) -> Sight:
        """The gate that has the weights of these `names`, as it was seen in several passes."""
        passes = []
        for seed, gain in enumerate(GAINS, 5):
            arrays, x = self.drawn(seed, gain), self.subject.feature_map(seed)
            passes.append((arrays, x, self.look(arrays, x, names)))
        alone = not (self.parts.channel and self.parts.spatial)
        return Sight(passes, rest, alone, self.subject.limit, describe)
