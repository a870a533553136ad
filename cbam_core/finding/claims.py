"""Arrays that several dialects write alike: which of them it is, if it makes no difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cbam_core.finding.groups import Group
from cbam_core.finding.shown import Fields, spec_of
from cbam_core.finding.tree import Tree
from cbam_core.spec import CBAMSpec

# Groups of names that claim the same arrays, each in its dialect.
Claim = Sequence[Group]


def only(claim: Claim, tree: Tree, fields: Fields) -> Group:
    """The first of a claim, if all mean the same.

    Raises:
        ValueError: they do not; the message has the dialects and what differs between them.
    """
    specs = [spec_of(group, tree, fields)[0] for group in claim]
    first, *others = map(_meaning, claim, specs)
    if all(other == first for other in others):
        return claim[0]
    width = max(len(group.dialect.name) for group in claim)
    differences = map(_difference, claim, specs, [claim] * len(claim), [specs] * len(claim))
    lines = [
        f"  --from {group.dialect.name:{width}}  {difference}: {group.dialect.about}"
        for group, difference in zip(claim, differences, strict=True)
    ]
    raise ValueError(
        f"holds a block at {claim[0].path!r} that several implementations write alike, and no "
        f"array tells which it is:\n" + "\n".join(lines) + "\npass the one whose code trained it"
    )


def _meaning(group: Group, spec: CBAMSpec) -> tuple[Any, ...]:
    """What the arrays mean in a dialect, whatever it calls their width."""
    leaves = group.spelling.leaves
    layouts = {(leaf, name, leaves[leaf][1].name) for leaf, name in group.names.items()}
    maps = group.dialect.maps if spec.has_spatial_gate else None
    return spec.replace(hidden=spec.hidden_channels, reduction=1), layouts, maps


def _difference(group: Group, spec: CBAMSpec, claim: Claim, specs: Sequence[CBAMSpec]) -> str:
    """The fields in which a claim's specs differ, as one of them has them."""
    own = spec.to_dict()
    fields = [f for f in own if any(other.to_dict()[f] != own[f] for other in specs)]
    parts = [f"{field}={getattr(spec, field)!r}" for field in fields]
    if len({other.dialect.maps for other in claim}) > 1:
        parts.append(f"maps={group.dialect.maps!r}")
    return ", ".join(parts)
