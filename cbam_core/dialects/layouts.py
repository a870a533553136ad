"""How an array lies in a file, and how it becomes canonical."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """One way in which a weight is laid out.

    Attributes:
        name: its axes, for messages.
        fits: whether an array of this shape can lie so.
        read: to the canonical layout.
        write: from the canonical layout, for feature maps of a rank.
        has_space: whether the array has the spatial axes of the feature map, besides two others.
    """

    name: str
    fits: Callable[[Shape], bool]
    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray, int], np.ndarray]
    has_space: bool = False

    def shape(self, canonical: Shape, rank: int) -> Shape:
        """The shape in the file of a weight whose canonical shape is `canonical`.

        >>> OUT_IN_ONES.shape((64, 4), rank=2)
        (4, 64, 1, 1)
        """
        return self.write(np.broadcast_to(np.float32(0), canonical), rank).shape


def _is_spatial(shape: Shape) -> bool:
    return 3 <= len(shape) <= 5


def _is_kernel(size: Shape) -> bool:
    return len(set(size)) == 1 and size[0] % 2 == 1


VECTOR = Layout("(C,)", lambda shape: len(shape) == 1, lambda w: w, lambda w, rank: w)
IN_OUT = Layout("(in, out)", lambda shape: len(shape) == 2, lambda w: w, lambda w, rank: w)
OUT_IN = Layout("(out, in)", lambda shape: len(shape) == 2, lambda w: w.T, lambda w, rank: w.T)
# A 1x1 convolution in the place of a linear layer.
OUT_IN_ONES = Layout(
    "(out, in, 1..)",
    lambda shape: _is_spatial(shape) and set(shape[2:]) == {1},
    lambda w: w.reshape(w.shape[:2]).T,
    lambda w, rank: w.T.reshape(w.shape[::-1] + (1,) * rank),
    has_space=True,
)
ONES_IN_OUT = Layout(
    "(1.., in, out)",
    lambda shape: _is_spatial(shape) and set(shape[:-2]) == {1},
    lambda w: w.reshape(w.shape[-2:]),
    lambda w, rank: w.reshape((1,) * rank + w.shape),
    has_space=True,
)
OUT_IN_SPACE = Layout(
    "(out, in, k..) with an odd k",
    lambda shape: _is_spatial(shape) and _is_kernel(shape[2:]),
    lambda w: np.moveaxis(w, (1, 0), (-2, -1)),
    lambda w, rank: np.moveaxis(w, (-1, -2), (0, 1)),
    has_space=True,
)
SPACE_IN_OUT = Layout(
    "(k.., in, out) with an odd k",
    lambda shape: _is_spatial(shape) and _is_kernel(shape[:-2]),
    lambda w: w,
    lambda w, rank: w,
    has_space=True,
)
