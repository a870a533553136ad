"""How a foreign module is called: its channels, rank and layout, found by trying."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from crosscheck.identifying.departure import Departure, PartedError
from crosscheck.identifying.shapes import is_kernel, matrix_sides
from crosscheck.identifying.subject import LIMITS, Subject

Arrays = Mapping[str, np.ndarray]

# Sizes of the probing maps by rank; no axis has the size of another.
SIZES = {1: (19,), 2: (9, 11), 3: (4, 5, 6)}


def find(probe: ModuleType, module: Any, channels: int | None) -> list[Subject]:
    """The way to call `module`: its channels, rank and layout, by trying.

    There are two of them if it takes both layouts, as what has no weights for channels may.

    Raises:
        ValueError: its channels are not given and not to be seen, or no map can be put through.
        PartedError: it returns something else than a map or a gate.
    """
    widths = [channels] if channels else _widths(probe.arrays(module))
    if not widths:
        raise ValueError(
            "the module's weights do not show the channels of the map that it takes; say how many "
            "there are by channels= or --channels"
        )
    failures: list[Exception] = []
    shapes: list[str] = []
    ways: list[Subject] = []
    for subject in _ways(probe, module, widths):
        if ways and (ways[0].channels, ways[0].rank) != (subject.channels, subject.rank):
            break
        x = subject.feature_map(0)
        try:
            returned = probe.call(module, subject.native(x), False)
        except Exception as error:  # Whatever a framework raises says that this way is wrong.
            failures.append(error)
            continue
        found = [subject.canonical(array, x.shape) for array in returned]
        if any(array is not None for array in found):
            subject.index = _looked_at(found, x.shape)
            subject.shapes = {n: a.shape for n, a in probe.arrays(module).items()}
            subject.dtype = _dtype(probe, module)
            ways.append(subject)
        else:
            shapes.append(f"{[a.shape for a in returned]} of a map {subject.native(x).shape}")
    if ways:
        return ways
    if shapes:
        raise PartedError(
            Departure("refined map", f"it returns {shapes[0]}, neither a map nor a gate")
        )
    reason = f"{type(failures[0]).__name__}: {str(failures[0]).strip()[:300]}"
    raise ValueError(
        f"the module could not be called on any map with {' or '.join(map(str, widths))} channels; "
        f"pass a module that takes one feature map, or other channels ({reason})"
    )


def _ways(probe: ModuleType, module: Any, widths: list[int]) -> Iterator[Subject]:
    usual = probe.CHANNELS_FIRST
    for width in widths:
        for rank in _ranks(probe.arrays(module)):
            for channels_first in (usual, not usual):
                subject = Subject(probe, module, width, rank, channels_first)
                subject.size = _size(subject)
                if subject.size:
                    yield subject


def _size(subject: Subject) -> tuple[int, ...]:
    """Of the maps to probe with, as the module is built for them; () if for other channels."""
    usual = tuple(size + 2 * (size == subject.channels) for size in SIZES[subject.rank])
    built = getattr(subject.module, "input_shape", None)
    if not isinstance(built, tuple) or len(built) != subject.rank + 2:
        return usual
    channels, fixed = (built[1], built[2:]) if subject.channels_first else (built[-1], built[1:-1])
    if channels not in (None, subject.channels):
        return ()
    return tuple(own or other for own, other in zip(fixed, usual, strict=True))


def _widths(arrays: Arrays) -> list[int]:
    """Both sides of every matrix, the larger first: one of them is the channels."""
    shapes = [array.shape for array in arrays.values() if not is_kernel(array.shape, channels=3)]
    sides = {side for shape in shapes for side in matrix_sides(shape)}
    return sorted(sides - {1}, reverse=True)


def _ranks(arrays: Arrays) -> list[int]:
    """What convolutions show comes first, then images."""
    shown = sorted({array.ndim - 2 for array in arrays.values() if array.ndim in (3, 4, 5)})
    return list(dict.fromkeys([*shown, 2, 1, 3]))


def _looked_at(found: list[Any], shape: tuple[int, ...]) -> int:
    """Of several arrays the first that is a whole map, else the first that is a gate."""
    fits = [i for i, array in enumerate(found) if array is not None]
    whole = [i for i in fits if found[i].shape == shape]
    return (whole or fits)[0]


def _dtype(probe: ModuleType, module: Any) -> str:
    """That it computes in: a half precision if any part of it does, else the weights'."""
    weights = {array.dtype.name for array in probe.arrays(module).values()}
    named = {
        _name(getattr(part, attribute, None))
        for part in probe.modules(module)
        for attribute in ("compute_dtype", "dtype")
    }
    return max(weights | named | {"float64"}, key=lambda dtype: LIMITS[dtype])


def _name(dtype: Any) -> str:
    """Of what a part says that it computes in; float64, which decides nothing, if it is no name."""
    try:
        name = np.dtype(dtype).name if dtype is not None else ""
    except TypeError:
        name = str(dtype)
    return name if name in LIMITS else "float64"
