"""A module's arrays, sorted by what they can be at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosscheck.identifying.departure import Departure, PartedError
from crosscheck.identifying.shapes import (
    Shapes,
    canonical_shape,
    is_kernel,
    kernel_layout,
    listed,
    matrix_layouts,
    matrix_sides,
)


@dataclass(frozen=True)
class Parts:
    """A module's arrays by what they can be at all.

    Attributes:
        first, second: the names of the MLP's two kernels, in the order of the module; several
            where each pool has an MLP of its own. `second` is empty if there is one kernel alone.
        vectors: of the lengths of the MLP's layers.
        squeeze, kernel: of the spatial gate, "" if it has none.
        scalars: vectors of one element.
        left: names of what can be nothing.
    """

    channels: int
    shapes: Shapes
    first: tuple[str, ...]
    second: tuple[str, ...]
    vectors: tuple[str, ...]
    squeeze: str
    kernel: str
    scalars: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def channel(self) -> tuple[str, ...]:
        return (*self.first, *self.second, *self.vectors)

    @property
    def spatial(self) -> tuple[str, ...]:
        return tuple(name for name in (self.squeeze, self.kernel) if name) + self.scalars

    @property
    def hidden(self) -> int:
        sides = matrix_sides(self.shapes[self.first[0]])
        return sides[0] if sides[1] == self.channels else sides[1]

    @property
    def maps(self) -> int:
        """What the spatial gate's convolution reads."""
        shape = self.shapes[self.kernel]
        return canonical_shape(shape, kernel_layout(shape))[-2]

    @property
    def copies(self) -> list[tuple[str, ...]]:
        """Names of arrays that one weight stands for in a CBAM."""
        groups = [self.first, self.second]
        if len(self.first) > 1 or len(self.second) > 1:
            groups += [biases for biases in self.biases() if len(biases) > 1]
        return [group for group in groups if len(group) > 1]

    def biases(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of the hidden and of the last layer, or if both are as wide, of each in its turn."""
        if self.hidden == self.channels:
            return self.vectors[::2], self.vectors[1::2]
        inner = tuple(n for n in self.vectors if np.prod(self.shapes[n]) == self.hidden)
        return inner, tuple(n for n in self.vectors if n not in inner)


def sort(shapes: Shapes, channels: int) -> Parts:
    """The arrays by what they can be.

    Raises:
        PartedError: no CBAM has such arrays.
    """
    kernels = [name for name, shape in shapes.items() if is_kernel(shape, channels)]
    scalars = [n for n, shape in shapes.items() if np.prod(shape) == 1 and n not in kernels]
    rest = [name for name in shapes if name not in (*kernels, *scalars)]
    matrices = [name for name in rest if matrix_sides(shapes[name])]
    wide = [name for name in matrices if channels in matrix_sides(shapes[name])]
    squeeze = _squeeze(wide, shapes, channels) if kernels else ""
    mlp = [name for name in wide if name != squeeze]
    first, second = _halves(mlp, shapes, channels)
    widths = {size for name in mlp for size in matrix_sides(shapes[name])}
    # Beside a spatial gate a scalar is that one's, until its effect shows something else.
    others = [n for n in (*rest, *(() if kernels else scalars)) if n not in matrices]
    vectors = _biases(others, shapes, widths, max(1, len(first)))
    scalars = scalars if kernels else []
    used = {*kernels[:1], *scalars, squeeze, *first, *second, *vectors}
    if not (first or kernels):
        raise PartedError(Departure("weights", f"no CBAM has such weights: {listed(shapes)}"))
    return Parts(
        channels,
        shapes,
        first,
        second,
        tuple(vectors),
        squeeze,
        kernels[0] if kernels else "",
        tuple(scalars),
        tuple(name for name in shapes if name not in used),
    )


def _biases(names: Sequence[str], shapes: Shapes, widths: set[int], most: int) -> list[str]:
    """Vectors as long as a layer is wide, unless there are more of a length than layers."""
    by_width = {width: [n for n in names if np.prod(shapes[n]) == width] for width in widths}
    allowed = 2 * most if len(widths) == 1 else most
    return [n for n in names if any(n in own and len(own) <= allowed for own in by_width.values())]


def _squeeze(matrices: Sequence[str], shapes: Shapes, channels: int) -> str:
    """The 1x1 convolution to one map, which is one matrix more than an MLP has."""
    to_one = [name for name in matrices if matrix_layouts(shapes[name], (channels, 1))]
    return to_one[-1] if to_one and len(matrices) % 2 else ""


def _halves(
    mlp: Sequence[str], shapes: Shapes, channels: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of both layers' kernels: by shape, or if that says nothing, in turn."""
    if not mlp:
        return (), ()
    widths = {matrix_sides(shapes[name]) for name in mlp}
    if len({tuple(sorted(sides)) for sides in widths}) > 1:
        raise PartedError(
            Departure("weights", f"no CBAM has such an MLP: {listed({n: shapes[n] for n in mlp})}")
        )
    if len(widths) == 2:
        first = tuple(n for n in mlp if matrix_sides(shapes[n]) == matrix_sides(shapes[mlp[0]]))
        return first, tuple(n for n in mlp if n not in first)
    if len(mlp) == 1 and set(widths) != {(channels, channels)}:
        raise PartedError(Departure("weights", f"its MLP has one layer: {mlp[0]} {shapes[mlp[0]]}"))
    return tuple(mlp[::2]), tuple(mlp[1::2])
