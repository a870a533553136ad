"""What a dialect is: the names and layouts in which one public implementation keeps its weights."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cbam_core.dialects.layouts import OUT_IN_SPACE, SPACE_IN_OUT, VECTOR, Layout

# Canonical name -> the owner's name and layout. In a name, {n} is a number that all names of a
# block have in common, or nothing (ca{n}.fc1.weight is ca.fc1.weight and ca2.fc1.weight), and {_}
# one that the framework gave the layer (dense{_}/kernel is dense/kernel and dense_7/kernel), so
# that the order of the layers tells the blocks apart.
Leaves = Mapping[str, tuple[str, Layout]]

GATES = ("channel", "spatial")


@dataclass(frozen=True, eq=False)
class Dialect:
    """One public implementation, as a table.

    Attributes:
        name: as `--from` and `--to` take it.
        about: whose code it is, in a line.
        spellings: the names of a block's weights, relative to the block; the first is written.
        bare: names that layers of other kinds have as well, such as fc1 and fc2: those of a module
            that holds nothing else.
        fields: what the code fixes and no array shows, as fields of a CBAMSpec; the rest has the
            defaults of CBAMSpec. What arrays do show is taken from them.
        settable: fields that its users choose and no array shows; `fields` has their default.
        optional: of "mlp_bias", "spatial_bias", "spatial_norm" what a block may have or lack;
            what has names in a spelling and is not optional is always there.
        alone: the gates, "channel" or "spatial", that stand without the other.
        maps: the order in which the convolution takes the pooled maps.
        lookalike: why this is not the paper's CBAM, if it is not.
    """

    name: str
    about: str
    spellings: tuple[Leaves, ...] = ()
    bare: tuple[Leaves, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    settable: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    maps: tuple[str, str] = ("avg", "max")
    lookalike: str = ""

    def spelling(self, gates: tuple[str, ...]) -> Leaves | None:
        """The names to write for a block that has these gates; None if there are none."""
        for leaves in self.spellings:
            if gates_of(leaves) == gates or (
                gates[0] in self.alone and gates[0] in gates_of(leaves)
            ):
                return leaves
        return next((leaves for leaves in self.bare if gates_of(leaves) == gates), None)


def gates_of(names: Iterable[str]) -> tuple[str, ...]:
    """The gates to which canonical names belong.

    >>> gates_of({"channel.reduce.kernel", "channel.expand.kernel"})
    ('channel',)
    """
    found = {name.partition(".")[0] for name in names}
    return tuple(gate for gate in GATES if gate in found)


# What a layer calls its kernel and its bias.
TORCH = (".weight", ".bias")
TENSORFLOW = ("/kernel", "/bias")
KERAS_3 = ("/vars/0", "/vars/1")


def mlp(
    first: str, second: str, layout: Layout, *, bias: bool, ends: tuple[str, str] = TORCH
) -> dict[str, tuple[str, Layout]]:
    """The leaves of a two-layer MLP whose layers are called `first` and `second`."""
    leaves: dict[str, tuple[str, Layout]] = {}
    for ours, theirs in (("reduce", first), ("expand", second)):
        leaves[f"channel.{ours}.kernel"] = (theirs + ends[0], layout)
        if bias:
            leaves[f"channel.{ours}.bias"] = (theirs + ends[1], VECTOR)
    return leaves


def conv(
    name: str, *, bias: bool = False, ends: tuple[str, str] = TORCH
) -> dict[str, tuple[str, Layout]]:
    """The leaves of the spatial gate's convolution."""
    layout = OUT_IN_SPACE if ends == TORCH else SPACE_IN_OUT
    leaves = {"spatial.conv.kernel": (name + ends[0], layout)}
    return leaves | ({"spatial.conv.bias": (name + ends[1], VECTOR)} if bias else {})


def torch_norm(name: str) -> dict[str, tuple[str, Layout]]:
    """The leaves of a batch norm in PyTorch."""
    leaves = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return {f"spatial.norm.{ours}": (f"{name}.{theirs}", VECTOR) for ours, theirs in leaves.items()}


def counters(leaves: Leaves) -> tuple[str, ...]:
    """Names of arrays that are neither weights nor statistics: a PyTorch norm's batches."""
    mean = leaves.get("spatial.norm.mean", ("", VECTOR))[0]
    is_torch = mean.endswith(".running_mean")
    return (mean.replace("running_mean", "num_batches_tracked"),) if is_torch else ()


@functools.cache
def pattern(name: str) -> re.Pattern[str]:
    """What matches a leaf's name, with dots, and the numbers in it: a group `n`, and one for each
    {_}.

    >>> pattern("ca{n}.fc1.weight").fullmatch("ca2.fc1.weight")["n"]
    '2'
    >>> pattern("dense{_}/kernel").fullmatch("dense_7.kernel").groups()
    ('', '7')
    """
    # Nine digits, since a longer number is none that a framework gave.
    escaped = re.escape(name.replace("/", ".")).replace(r"\{_\}", r"(?:_(\d{1,9}))?")
    escaped = escaped.replace(r"\{n\}", r"(?P<n>\d{0,9})")
    return re.compile(escaped if "{n}" in name else f"(?P<n>){escaped}")
