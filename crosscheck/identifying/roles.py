"""Which array may be which canonical weight."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbam_core.dialects.dialect import VECTOR, Layout
from crosscheck.identifying.parts import Parts
from crosscheck.identifying.shapes import kernel_layout, matrix_layouts

Arrays = Mapping[str, np.ndarray]

NORM = ("spatial.norm.scale", "spatial.norm.bias", "spatial.norm.mean", "spatial.norm.var")


@dataclass(frozen=True)
class Place:
    """Where a canonical weight is kept: in several arrays if the module has copies of its own."""

    names: tuple[str, ...]
    layout: Layout = VECTOR

    def read(self, arrays: Arrays) -> np.ndarray:
        array = arrays[self.names[0]]
        return self.layout.read(array.reshape(-1) if self.layout is VECTOR else array)


Roles = Mapping[str, Place]


def read(roles: Roles, arrays: Arrays) -> dict[str, np.ndarray]:
    """The canonical weights in `arrays`, float64."""
    return {name: place.read(arrays).astype(np.float64) for name, place in roles.items()}


def channel_roles(parts: Parts) -> Iterator[Roles]:
    """Every way to read the MLP."""
    channels, hidden, shapes = parts.channels, parts.hidden, parts.shapes
    if not parts.second:
        for layout in matrix_layouts(shapes[parts.first[0]], (channels, channels)):
            yield _with_biases(parts, {"channel.expand.kernel": Place(parts.first, layout)})
        return
    for reduce, expand in ((parts.first, parts.second), (parts.second, parts.first)):
        down = matrix_layouts(shapes[reduce[0]], (channels, hidden))
        up = matrix_layouts(shapes[expand[0]], (hidden, channels))
        for first, second in itertools.product(down, up):
            kernels = {
                "channel.reduce.kernel": Place(reduce, first),
                "channel.expand.kernel": Place(expand, second),
            }
            yield _with_biases(parts, kernels)


def _with_biases(parts: Parts, kernels: dict[str, Place]) -> Roles:
    """By their length, or if that says nothing, in the order of the kernels."""
    first, second = parts.biases()
    is_turned = parts.hidden == parts.channels and (
        kernels["channel.expand.kernel"].names == parts.first
    )
    reduce, expand = (second, first) if is_turned else (first, second)
    biases = {"channel.reduce.bias": reduce, "channel.expand.bias": expand}
    return kernels | {name: Place(names) for name, names in biases.items() if names}


# What scalars of a spatial gate may be, by their number. A norm may lack its statistics or its
# scale and bias.
_BIAS = ("spatial.conv.bias",)
_SCALARS: dict[int, tuple[tuple[str, ...], ...]] = {
    0: ((),),
    1: (_BIAS,),
    2: (NORM[2:], NORM[:2]),
    3: (NORM[1:], (NORM[0], *NORM[2:]), _BIAS + NORM[2:], _BIAS + NORM[:2]),
    4: (NORM,),
    5: (_BIAS + NORM,),
}


def spatial_roles(parts: Parts) -> Iterator[Roles]:
    """Every way to read the spatial gate: nothing but their effect tells scalars apart."""
    layout = kernel_layout(parts.shapes[parts.kernel])
    places = {"spatial.conv.kernel": Place((parts.kernel,), layout)}
    if parts.squeeze:
        layout = matrix_layouts(parts.shapes[parts.squeeze], (parts.channels, 1))[0]
        places = {"spatial.squeeze.kernel": Place((parts.squeeze,), layout), **places}
    for names in _SCALARS.get(len(parts.scalars), ()):
        for order in itertools.permutations(parts.scalars):
            yield places | {n: Place((own,)) for n, own in zip(names, order, strict=True)}


def likeliest(ways: Sequence[Roles]) -> list[Roles]:
    """Of many ways to read a module those that its names speak for most."""
    scores = [sum(_speaks_for(name, roles) for name in roles) for roles in ways]
    return [roles for roles, score in zip(ways, scores, strict=True) if score == max(scores)]


# What a norm's weights are called.
_CALLED = {
    "spatial.norm.scale": ("scale", "gamma", "weight"),
    "spatial.norm.bias": ("bias", "beta"),
    "spatial.norm.mean": ("mean",),
    "spatial.norm.var": ("var",),
}


def _speaks_for(canonical: str, roles: Roles) -> bool:
    name = roles[canonical].names[0]
    if canonical == "spatial.conv.bias":
        kernel = roles["spatial.conv.kernel"].names[0]
        return re.split("[./]", name)[:-1] == re.split("[./]", kernel)[:-1]
    leaf = re.split("[./]", name)[-1].lower()
    return any(word in leaf for word in _CALLED.get(canonical, ()))
