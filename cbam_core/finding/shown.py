"""What the arrays of a block show of its spec, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from cbam_core.dialects.dialect import GATES, gates_of
from cbam_core.dialects.layouts import Shape
from cbam_core.finding.groups import Group, Spelling
from cbam_core.finding.tree import Tree
from cbam_core.spec import CHANNEL_FIELDS, SPATIAL_FIELDS, CBAMSpec, fields_read
from cbam_core.weights import weight_shapes

# Canonical name -> the shape that its array has in the file; fields of a spec. Both as pairs, so
# that what follows from them is found once for all blocks of a network that are alike.
Shapes = tuple[tuple[str, Shape], ...]
Fields = tuple[tuple[str, Any], ...]


def spec_of(group: Group, tree: Tree, fields: Fields) -> tuple[CBAMSpec, dict[str, str]]:
    """The spec of a block, and its fields that no array shows with who says what they are.

    That is "dialect" for what its code fixes, "default" for what its users choose and its code
    has a default for, and "caller" for what is in `fields`.

    Raises:
        ValueError: the fields are not what the arrays show, or channels has to be passed.
    """
    try:
        return _spec(group.spelling, _shapes(group, tree), fields)
    except ValueError as error:
        raise ValueError(f"holds at {group.path!r} {error}") from error


def _shapes(group: Group, tree: Tree) -> Shapes:
    return tuple((canonical, tree[name].shape) for canonical, name in group.names.items())


@lru_cache(maxsize=10_000)
def _spec(spelling: Spelling, shapes: Shapes, fields: Fields) -> tuple[CBAMSpec, dict[str, str]]:
    shown, told = _shown(spelling, dict(shapes)), dict(fields)
    _refuse_contradictions(shown, told)
    read = fields_read(
        channel="mlp_bias" in shown,
        spatial="kernel_size" in shown,
        norm=shown.get("spatial_norm", False),
    )
    known = {f: v for f, v in {**spelling.dialect.fields, **told}.items() if f in read} | shown
    if "channels" not in known:
        raise ValueError(NEEDS_CHANNELS)
    width = max(1, known["channels"] // known.get("reduction", 16))
    if shown.get("hidden") == width and "hidden" not in told:
        del known["hidden"]
    by_default = {"channels", "rank", *spelling.dialect.settable}
    unseen = {
        field: "caller" if field in told else "default" if field in by_default else "dialect"
        for field in (*CHANNEL_FIELDS, *SPATIAL_FIELDS, "order", "residual")
        if field in read - shown.keys() - {"reduction", "hidden"}
    }
    return CBAMSpec(**known), unseen


NEEDS_CHANNELS = (
    "a spatial gate alone, whose arrays do not show the channels of the map; pass channels= "
    "(--set channels=)"
)


def _refuse_contradictions(shown: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    for field in (shown.keys() & told.keys()) - {"channels"}:
        if told[field] != shown[field]:
            raise ValueError(
                f"arrays that show {field}={shown[field]!r}, and {field}={told[field]!r} was "
                f"passed; leave it out"
            )
    if told.get("order") in GATES and "order" not in shown:
        raise ValueError(
            f"the arrays of both gates, and order={told['order']!r} was passed; leave it out"
        )


def _shown(spelling: Spelling, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The fields of a spec that the shapes of the arrays decide."""
    layouts = {canonical: spelling.leaves[canonical][1] for canonical in shapes}
    canonical = {
        leaf: layouts[leaf].read(np.broadcast_to(np.float32(0), shape)).shape
        for leaf, shape in shapes.items()
    }
    gates = gates_of(shapes)
    shown: dict[str, Any] = {"order": gates[0]} if len(gates) == 1 else {}
    for leaf, shape in shapes.items():
        if layouts[leaf].has_space:
            shown["rank"] = len(shape) - 2
    if "channel" in gates:
        shown["channels"], shown["hidden"] = canonical["channel.reduce.kernel"]
        shown["mlp_bias"] = "channel.reduce.bias" in shapes
    if "spatial" in gates:
        size, *_, maps, _ = canonical["spatial.conv.kernel"]
        shown["kernel_size"] = size
        shown["spatial_bias"] = "spatial.conv.bias" in shapes
        shown["spatial_norm"] = "spatial.norm.scale" in shapes
        shown["spatial_descriptor"] = "conv" if "spatial.squeeze.kernel" in shapes else "pool"
        if "spatial.squeeze.kernel" in shapes:
            shown["channels"] = canonical["spatial.squeeze.kernel"][0]
        elif "pooling" in spelling.dialect.settable:
            shown["pooling"] = "light" if maps == 1 else "separate"
    return shown


def weights_of(group: Group, tree: Tree) -> dict[str, np.ndarray]:
    """The arrays of a group in the canonical layout, as views where that is possible."""
    weights = {
        canonical: group.spelling.leaves[canonical][1].read(tree[name])
        for canonical, name in group.names.items()
    }
    kernel = weights.get("spatial.conv.kernel")
    if kernel is not None and kernel.shape[-2] == 2 and group.dialect.maps == ("max", "avg"):
        weights["spatial.conv.kernel"] = kernel[..., ::-1, :]
    return weights


def widens(group: Group, tree: Tree) -> bool:
    """Whether an MLP has more hidden units than channels, as that of a transformer."""
    spec, _ = _spec(group.spelling, _shapes(group, tree), (("channels", 1),))
    return spec.has_channel_gate and spec.hidden_channels > spec.channels


def problems(group: Group, tree: Tree) -> list[str]:
    """Why the arrays of a group are not the whole of a block and nothing else; [] if they are."""
    leaves = group.spelling.leaves
    if not leaves:  # found by its structure
        return []
    missing = [f"missing: {group.spelled(leaves[name][0])}" for name in group.missing]
    misfits = _misfits(group.spelling, _shapes(group, tree), not missing)
    misshaped = [
        f"misshaped: {name} has shape {tree[name].shape}, expected {expected}"
        for canonical, expected in misfits
        for name in [group.names[canonical]]
    ]
    return missing + misshaped + _unexpected(group, tree)


@lru_cache(maxsize=10_000)
def _misfits(spelling: Spelling, shapes: Shapes, is_whole: bool) -> list[tuple[str, str]]:
    """Canonical names of arrays whose shapes are wrong, each with what was expected."""
    layouts = {canonical: spelling.leaves[canonical][1] for canonical, _ in shapes}
    wrong = [
        (leaf, layouts[leaf].name)
        for leaf, shape in shapes
        if 0 in shape or not layouts[leaf].fits(shape)
    ]
    if wrong or not is_whole or spelling.dialect.lookalike:
        return wrong
    spec, _ = _spec(spelling, shapes, (("channels", 1),))
    expected = weight_shapes(spec)
    for leaf, shape in shapes:
        fitting = layouts[leaf].shape(expected[leaf], spec.rank)
        if shape != fitting:
            wrong.append((leaf, str(fitting)))
    return wrong


def _unexpected(group: Group, tree: Tree) -> list[str]:
    """What else stands in the modules of the block."""
    own = {*group.names.values(), *group.counters(tree)}
    modules = group.modules()
    if sum(map(tree.count, modules)) == len(own):
        return []
    besides = {name for module in modules for name in tree.below(module, len(own) + 3)} - own
    return [f"unexpected: {name}" for name in sorted(besides)]
