"""What a dialect is: the names and layouts in which one public implementation keeps its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How an array lies in a file, and how it becomes canonical.

    Attributes:
        fits: whether an array of this shape can lie so.
        read: to the canonical layout.
        write: from the canonical layout, for feature maps of a rank.
    """

    name: str
    fits: Callable[[Shape], bool]
    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray, int], np.ndarray]


VECTOR = Layout("(C,)", lambda shape: len(shape) == 1, lambda w: w, lambda w, rank: w)
IN_OUT = Layout("(in, out)", lambda shape: len(shape) == 2, lambda w: w, lambda w, rank: w)
OUT_IN = Layout("(out, in)", lambda shape: len(shape) == 2, lambda w: w.T, lambda w, rank: w.T)
# A 1x1 convolution in the place of a linear layer.
OUT_IN_ONES = Layout(
    "(out, in, 1..)",
    lambda shape: 3 <= len(shape) <= 5 and set(shape[2:]) == {1},
    lambda w: w.reshape(w.shape[:2]).T,
    lambda w, rank: w.T.reshape(w.shape[::-1] + (1,) * rank),
)
ONES_IN_OUT = Layout(
    "(1.., in, out)",
    lambda shape: 3 <= len(shape) <= 5 and set(shape[:-2]) == {1},
    lambda w: w.reshape(w.shape[-2:]),
    lambda w, rank: w.reshape((1,) * rank + w.shape),
)
OUT_IN_SPACE = Layout(
    "(out, in, k..)",
    lambda shape: 3 <= len(shape) <= 5,
    lambda w: np.moveaxis(w, (1, 0), (-2, -1)),
    lambda w, rank: np.moveaxis(w, (-1, -2), (0, 1)),
)
SPACE_IN_OUT = Layout(
    "(k.., in, out)", lambda shape: 3 <= len(shape) <= 5, lambda w: w, lambda w, rank: w
)

# Canonical name -> the owner's name and layout. In a name, {n} is a number that all names of a
# block have in common, or nothing: ca{n}.fc1.weight.
Leaves = Mapping[str, tuple[str, Layout]]


@dataclass(frozen=True)
class Dialect:
    """One public implementation, as a table.

    Attributes:
        name: as `--from` and `--to` take it.
        about: whose code it is, in a line.
        spellings: the names of a block's weights, relative to the block; the first is written.
        fields: what the code fixes and no array shows, as fields of a CBAMSpec; the rest has the
            defaults of CBAMSpec.
        settable: fields that its users choose and no array shows; `fields` has their default.
        optional: of "mlp_bias", "spatial_bias", "spatial_norm" what a block may have or lack;
            what has names in a spelling and is not optional is always there.
        maps: the order in which the convolution takes the pooled maps.
        counters: names, relative to the block, of arrays that are neither weights nor statistics.
        in_order: whether names say nothing, so that the order in the file gives the pairs.
        lookalike: why this is not the paper's CBAM, if it is not.
    """

    name: str
    about: str
    spellings: tuple[Leaves, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    settable: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    maps: tuple[str, str] = ("avg", "max")
    counters: tuple[str, ...] = ()
    in_order: bool = False
    lookalike: str = ""

    @property
    def separator(self) -> str:
        """What stands between a block's path and its names: a slash if they have slashes."""
        return "/" if any("/" in name for name, _ in self.spellings[0].values()) else "."


def mlp(
    first: str, second: str, layout: Layout, *, bias: bool, kernel: str = ".weight"
) -> dict[str, tuple[str, Layout]]:
    """The leaves of a two-layer MLP whose layers are called `first` and `second`."""
    leaves: dict[str, tuple[str, Layout]] = {}
    for ours, theirs in (("reduce", first), ("expand", second)):
        leaves[f"channel.{ours}.kernel"] = (theirs + kernel, layout)
        if bias:
            leaves[f"channel.{ours}.bias"] = (f"{theirs}{kernel[0]}bias", VECTOR)
    return leaves


def torch_conv(name: str, *, bias: bool = False) -> dict[str, tuple[str, Layout]]:
    """The leaves of the spatial gate's convolution in PyTorch."""
    leaves = {"spatial.conv.kernel": (f"{name}.weight", OUT_IN_SPACE)}
    return leaves | ({"spatial.conv.bias": (f"{name}.bias", VECTOR)} if bias else {})


def torch_norm(name: str) -> dict[str, tuple[str, Layout]]:
    """The leaves of a batch norm in PyTorch."""
    leaves = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return {f"spatial.norm.{ours}": (f"{name}.{theirs}", VECTOR) for ours, theirs in leaves.items()}


def pattern(name: str) -> re.Pattern[str]:
    """What matches a leaf's name at the end of a path, with groups `prefix` and `n`.

    >>> found = pattern("ca{n}.fc1.weight").fullmatch("layer1.0.ca2.fc1.weight")
    >>> found["prefix"], found["n"]
    ('layer1.0.', '2')
    """
    escaped = re.escape(name).replace(r"\{n\}", r"(?P<n>\d*)").replace(r"\.", "[./]")
    if "{n}" not in name:
        escaped += "(?P<n>)"
    return re.compile(rf"(?P<prefix>(?:.*[./])?){escaped}", re.DOTALL)
