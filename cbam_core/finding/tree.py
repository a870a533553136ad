"""The arrays of a file as a tree of modules."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping

import numpy as np


class Tree(Mapping[str, np.ndarray]):
    """The arrays under their names with dots for slashes, in the order of the file.

    >>> tree = Tree({"block/dense/kernel": np.ones((4, 2)), "block/dense/bias": np.ones(2)})
    >>> tree["block.dense.bias"].shape, tree.count("block.dense"), tree.below("block", most=1)
    ((2,), 2, ['block.dense.bias'])
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.in_file = {name.replace("/", "."): name for name in arrays}
        self._arrays = arrays
        self._sorted = sorted(self.in_file)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[self.in_file[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.in_file)

    def __len__(self) -> int:
        return len(self.in_file)

    def count(self, module: str) -> int:
        """How many arrays stand below a module; "" is the root."""
        first, end = self._range(module)
        return end - first

    def below(self, module: str, most: int) -> list[str]:
        """The first names below a module, sorted, at most so many."""
        first, end = self._range(module)
        return self._sorted[first : min(end, first + most)]

    def _range(self, module: str) -> tuple[int, int]:
        # In ASCII, a slash follows the dot.
        ends = (f"{module}.", f"{module}/") if module else ("", "\U0010ffff")
        return bisect_left(self._sorted, ends[0]), bisect_left(self._sorted, ends[1])
