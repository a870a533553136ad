"""What an array can be by its shape alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cbam_core.dialects.layouts import (
    IN_OUT,
    ONES_IN_OUT,
    OUT_IN,
    OUT_IN_ONES,
    OUT_IN_SPACE,
    SPACE_IN_OUT,
    Layout,
)

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# Of a layer of an MLP, linear or a 1x1 convolution, and of a spatial gate's convolution.
MATRICES = (OUT_IN, IN_OUT, OUT_IN_ONES, ONES_IN_OUT)
KERNELS = (OUT_IN_SPACE, SPACE_IN_OUT)


def canonical_shape(shape: Shape, layout: Layout) -> Shape:
    """Of an array of `shape` that lies in `layout`."""
    return layout.read(np.empty(shape, bool)).shape


def matrix_sides(shape: Shape) -> Shape:
    """Both sides of a matrix or 1x1 convolution; () if it is neither."""
    fits = [layout for layout in MATRICES if layout.fits(shape)]
    return canonical_shape(shape, fits[0]) if fits else ()


def matrix_layouts(shape: Shape, wanted: tuple[int, int]) -> list[Layout]:
    """In which an array of `shape` is a canonical matrix of the `wanted` one."""
    fits = [layout for layout in MATRICES if layout.fits(shape)]
    return [layout for layout in fits if canonical_shape(shape, layout) == wanted]


def is_kernel(shape: Shape, channels: int) -> bool:
    """Whether this can be the spatial gate's convolution, of one or two maps to one."""
    return bool(_kernel_layouts(shape)) and (max(shape) > 2 or channels > 2)


def kernel_layout(shape: Shape) -> Layout:
    """Of the spatial gate's convolution; if several fit, they give the same."""
    return _kernel_layouts(shape)[0]


def _kernel_layouts(shape: Shape) -> list[Layout]:
    return [layout for layout in KERNELS if layout.fits(shape) and _maps_to_one(shape, layout)]


def _maps_to_one(shape: Shape, layout: Layout) -> bool:
    *space, maps, out = canonical_shape(shape, layout)
    return out == 1 and maps <= 2 and len(set(space)) == 1 and space[0] % 2 == 1


def listed(shapes: Shapes) -> str:
    """Names with their shapes, the first few."""
    shown = [f"{name} {shape}" for name, shape in shapes.items()]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
