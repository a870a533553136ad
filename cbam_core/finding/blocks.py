"""Finding CBAMs among the arrays of a file: by names first, by shapes second, never by a guess."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbam_core.dialects import DIALECTS, Dialect, named
from cbam_core.dialects.dialect import gates_of
from cbam_core.finding.claims import only
from cbam_core.finding.groups import (
    Group,
    Match,
    Spelling,
    alike,
    by_prefix,
    largest,
    matches,
    spellings,
)
from cbam_core.finding.in_order import in_order, without_a_block
from cbam_core.finding.shown import NEEDS_CHANNELS, Fields, problems, spec_of, weights_of, widens
from cbam_core.finding.strays import mlp_beside, refuse_halves, unshared_mlps
from cbam_core.finding.tree import Tree
from cbam_core.spec import CBAMSpec
from cbam_core.weights import FLOATS, as_canonical, weight_shapes


@dataclass(frozen=True)
class Block:
    """One CBAM or squeeze-and-excitation block of a file.

    Attributes:
        dialect: the name of the dialect in which it is written.
        spec, weights: what it is, and its canonical weights.
        names: canonical name -> the name in the file.
        counters: name in the file -> array, of what belongs to the block and is no weight: the
            batches that a PyTorch norm has seen.
        unseen: the fields of the spec that no array shows -> who says what they are: "dialect" if
            its code fixes them, "default" if its users choose them, "caller" if they were passed.
        around: what the file has in front of the block's path, such as "state_dict/module.".
    """

    dialect: str
    spec: CBAMSpec
    weights: dict[str, np.ndarray]
    names: dict[str, str]
    counters: dict[str, np.ndarray]
    unseen: dict[str, str]
    around: str = ""


def find(
    arrays: Mapping[str, np.ndarray],
    dialect: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Block], dict[str, Dialect]]:
    """The blocks by their paths, in the order of the file, and what looks like one and is not.

    Args:
        arrays: name -> array, without the wrappers that `unwrap` takes off.
        dialect: those to read, with commas; all if None.
        fields: of the spec, what no array shows and the caller knows.

    Raises:
        ValueError: several dialects write a block alike, one is incomplete beside others, its
            values are no finite floats, or the fields are not what the arrays show.
    """
    tree, told = Tree(arrays), _told(fields or {})
    telling, whole = _whole(tree, dialect, told)
    # A bare pair may be one of two MLPs, and a spatial gate alone the one that they stand beside.
    certain = _arrays(g for g in whole if _gates(g) != ("spatial",) and not _is_bare_pair(g))
    unshared = unshared_mlps(tree, certain)
    twice = {name for names in unshared.values() for name in names}
    whole = [group for group in whole if group.arrays.isdisjoint(twice)]
    lookalikes = {group.path: group.dialect for group in whole if group.dialect.lookalike}
    lookalikes |= dict.fromkeys(unshared, DIALECTS["unshared_mlp"])

    # Once, since a union for each block would take a time that grows with their square.
    taken = _arrays(whole) | twice
    mlp = mlp_beside(tree, taken, _spatial_gates(whole))
    if mlp and "order" not in dict(told):
        raise ValueError(mlp)
    blocks = _blocks([group for group in whole if not group.dialect.lookalike], tree, told)
    _refuse_parts([g for g in telling if not g.arrays <= taken], tree, blocks)
    if "order" not in dict(told):
        alone = {p: b.dialect if b.spec.order == "channel" else "" for p, b in blocks.items()}
        refuse_halves(tree, taken, alone)
    return blocks, lookalikes


def nearest(arrays: Mapping[str, np.ndarray], dialect: str | None = None) -> str:
    """Of a file without blocks: what comes nearest to one and what is wrong with it, or ""."""
    tree = Tree(arrays)
    found = _matches(tree, dialect)
    groups = _groups(tree, found)
    groups = [g for g in largest(groups, groups) if not g.dialect.lookalike]
    for group in groups:
        if not group.missing and not problems(group, tree):
            mlp = mlp_beside(tree, group.arrays, _spatial_gates([group]))
            return mlp or f"holds at {group.path!r} {NEEDS_CHANNELS}"
    near = [group for group in groups if dialect or not group.spelling.is_bare]
    if near:
        return _shortfall(near, tree)
    numbered = [without_a_block(t, m, tree) for t, m in found.items() if t.is_in_order]
    return next(filter(None, numbered), "")


def _whole(tree: Tree, dialect: str | None, fields: Fields) -> tuple[list[Group], list[Group]]:
    """All groups of telling names, and of all groups those that are blocks.

    Bare names are those of a block where no telling ones claim the arrays. A pair of layers has
    to narrow the channels, unless its dialect was asked for, and a spatial gate alone, a mere
    conv1, counts where the caller says its channels.
    """
    found = _matches(tree, dialect)
    telling = _groups(tree, {table: m for table, m in found.items() if not table.is_bare})
    whole = [group for group in telling if not problems(group, tree)]
    taken = _arrays(whole)
    free = {t: [m for m in ms if m.name not in taken] for t, ms in found.items() if t.is_bare}
    bare = [
        group
        for group in _groups(tree, free)
        if not group.missing
        and (_gates(group) != ("spatial",) or "channels" in dict(fields))
        and not problems(group, tree)
        and (dialect or not widens(group, tree))
    ]
    return telling, largest([*whole, *bare], among=[*telling, *bare])


def _gates(group: Group) -> tuple[str, ...]:
    return gates_of(group.names)


def _spatial_gates(groups: Iterable[Group]) -> dict[str, str]:
    """Path of a spatial gate alone -> the name of its convolution."""
    alone = [group for group in groups if _gates(group) == ("spatial",)]
    return {group.path: group.names["spatial.conv.kernel"] for group in alone}


def _is_bare_pair(group: Group) -> bool:
    """Whether it is two layers that could as well be one of two MLPs."""
    return group.spelling.is_bare and _gates(group) == ("channel",)


def _told(fields: Mapping[str, Any]) -> Fields:
    spec = CBAMSpec(1).replace(**fields)
    return tuple((field, getattr(spec, field)) for field in fields)


def _matches(tree: Tree, dialect: str | None) -> dict[Spelling, list[Match]]:
    """All names of a block in the dialects that are asked for, or of a look-alike."""
    asked = named(dialect) if dialect else list(DIALECTS.values())
    asked += [one for one in DIALECTS.values() if one.lookalike and one not in asked]
    return matches(tree, [table for one in asked for table in spellings(one)])


def _groups(tree: Tree, found: Mapping[Spelling, list[Match]]) -> list[Group]:
    return [
        group
        for table, own in found.items()
        for group in (in_order(table, own, tree) if table.is_in_order else by_prefix(table, own))
    ]


def _arrays(groups: Iterable[Group]) -> set[str]:
    return {name for group in groups for name in group.arrays}


def _blocks(groups: list[Group], tree: Tree, fields: Fields) -> dict[str, Block]:
    blocks: dict[str, Block] = {}
    for claim in alike(groups, tree):
        group = only(claim, tree, fields)
        if group.path in blocks:
            dialects = f"{blocks[group.path].dialect} and {group.dialect.name}"
            raise ValueError(
                f"holds two blocks at {group.path!r}, of {dialects}; pass the dialect to read"
            )
        blocks[group.path] = _block(group, tree, fields)
    return blocks


def _block(group: Group, tree: Tree, fields: Fields) -> Block:
    spec, unseen = spec_of(group, tree, fields)
    names = {leaf: tree.in_file[name] for leaf, name in group.names.items()}
    read = weights_of(group, tree)
    weights = {leaf: as_canonical(read[leaf]) for leaf in weight_shapes(spec)}
    for leaf, weight in weights.items():
        check_values(f"holds a block at {group.path!r} whose {names[leaf]}", weight)
    counters = {tree.in_file[name]: tree[name] for name in group.counters(tree)}
    return Block(group.dialect.name, spec, weights, names, counters, dict(unseen))


def check_values(what: str, weight: np.ndarray) -> None:
    """Raise a ValueError, in which it is called `what`, if an array can't be a weight."""
    is_float = weight.dtype.name in FLOATS
    if not is_float or not np.isfinite(weight).all():
        wrong = "values that are not finite" if is_float else f"dtype {weight.dtype}"
        raise ValueError(f"{what} has {wrong}; expected finite values of {', '.join(FLOATS)}")


def _refuse_parts(groups: list[Group], tree: Tree, blocks: Mapping[str, Block]) -> None:
    """Raise if a part of a block stands beside whole ones of its dialect."""
    known = {block.dialect for block in blocks.values()}
    parts = [g for g in groups if g.dialect.name in known and not g.spelling.is_bare]
    if parts:
        raise ValueError(_shortfall(parts, tree))


def _shortfall(groups: list[Group], tree: Tree) -> str:
    """What is wrong with the group that is nearest to a block."""
    wrong = {group: problems(group, tree) for group in groups}
    group = min(groups, key=lambda one: len(wrong[one]) / len(one.names))
    return (
        f"holds an incomplete block at {group.path!r}; the nearest dialect is "
        f"{group.dialect.name} ({group.dialect.about}):\n  " + "\n  ".join(wrong[group])
    )
