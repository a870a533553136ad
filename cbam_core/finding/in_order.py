"""Blocks of layers that a framework has named: which of them belong together.

Names such as dense, dense_1, conv2d say nothing but the order in which the layers were made. Two
that narrow C to h and widen h to C, one after the other, are an MLP, and the next convolution of
two maps to one is that of its block. All others are passed over by their shapes.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator

from cbam_core.dialects import DIALECTS
from cbam_core.finding.groups import Group, Match, Spelling
from cbam_core.finding.tree import Tree

# Canonical name -> name in the file: of one layer, or of the two layers of an MLP.
Layer = dict[str, str]


def in_order(table: Spelling, found: Iterable[Match], tree: Tree) -> Iterator[Group]:
    """The blocks under each prefix; one that has two MLPs is the look-alike `unshared_mlp`."""
    by_prefix: dict[str, list[Match]] = defaultdict(list)
    for match in found:
        by_prefix[match.prefix].append(match)
    for prefix, matches in by_prefix.items():
        blocks = list(_Layers(table, matches, tree).blocks())
        for mlps, gate in blocks:
            names = mlps[0] | gate
            layer = _first_layer(table, prefix, names) if len(blocks) > 1 else ""
            if len(mlps) == 1:
                yield Group(table, prefix, "", names, layer)
            else:
                every = {name: name for one in (*mlps, gate) for name in one.values()}
                yield Group(_UNSHARED, prefix, "", every, layer)


_UNSHARED = Spelling(DIALECTS["unshared_mlp"], {})


def _first_layer(table: Spelling, prefix: str, names: Layer) -> str:
    """What tells a block from others with its prefix."""
    depth = table.leaves["channel.reduce.kernel"][0].partition("{_}")[0].count("/")
    return names["channel.reduce.kernel"].removeprefix(prefix).split(".")[depth]


def without_a_block(table: Spelling, found: Iterable[Match], tree: Tree) -> str:
    """What a file has that has a spatial gate's convolution and no block, or ""."""
    gates = _Layers(table, list(found), tree).gates()
    if not gates:
        return ""
    leaves = table.leaves
    layers = [
        f"{leaves[f'{layer}.kernel'][0]} {axes} with{'' if f'{layer}.bias' in leaves else 'out'} "
        f"a bias"
        for layer, axes in (
            ("channel.reduce", "(C, h)"),
            ("channel.expand", "(h, C)"),
            ("spatial.conv", "(k.., 2, 1)"),
        )
    ]
    return (
        f"has the convolution {gates[0]['spatial.conv.kernel']} of two maps, and no block of "
        f"{table.dialect.name}, which is {', '.join(layers)}, in the order of their numbers"
    ).replace("{_}", "")


class _Layers:
    """The numbered layers under one prefix."""

    def __init__(self, table: Spelling, matches: list[Match], tree: Tree) -> None:
        self.leaves, self.matches = table.leaves, matches
        self.positions = {match.name: match.position for match in matches}
        self.shapes = {
            match.name: layout.read(tree[match.name]).shape
            for match in matches
            for layout in [table.leaves[match.canonical][1]]
            if layout.fits(tree[match.name].shape)
        }

    def blocks(self) -> Iterator[tuple[list[Layer], Layer]]:
        """The MLP of each block, or the two of equal shapes, and its convolution."""
        mlps, gates = self._mlps(), self.gates()
        for together, gate in self._by_position(mlps, gates) or self._by_number(mlps, gates):
            alike = len(together) == 2 and self._shape(together[0]) == self._shape(together[1])
            yield (together if alike else together[-1:]), gate

    def _in(self, role: str) -> dict[tuple[int, ...], Layer]:
        """The whole layers that may have a role in a block, by their numbers."""
        layers: dict[tuple[int, ...], Layer] = defaultdict(dict)
        for match in self.matches:
            if match.canonical.startswith(role) and match.name in self.shapes:
                layers[match.numbers][match.canonical] = match.name
        whole = sum(canonical.startswith(role) for canonical in self.leaves)
        return {n: layer for n, layer in sorted(layers.items()) if len(layer) == whole}

    def _mlps(self) -> list[Layer]:
        """Two layers that come one after the other, and narrow and widen."""
        first, second = self._in("channel.reduce."), self._in("channel.expand.")
        names = {self.leaves[f"channel.{layer}.kernel"][0] for layer in ("reduce", "expand")}
        following = list(second)[1:] if len(names) == 1 else list(second)
        mlps: list[Layer] = []
        taken = None
        for one, other in zip(first, following, strict=False):
            (channels, hidden), widened = self._shape(first[one]), self._shape(second[other])
            is_mlp = widened == (hidden, channels) and (hidden <= channels or len(names) == 2)
            if one != taken and is_mlp:
                mlps.append(first[one] | second[other])
                taken = other
        return mlps

    def gates(self) -> list[Layer]:
        """The convolutions that make one map of two."""
        return [g for g in self._in("spatial.conv.").values() if self._shape(g)[-2:] == (2, 1)]

    def _shape(self, layer: Layer) -> tuple[int, ...]:
        return self.shapes[next(name for leaf, name in layer.items() if leaf.endswith("kernel"))]

    def _by_position(
        self, mlps: list[Layer], gates: list[Layer]
    ) -> list[tuple[list[Layer], Layer]]:
        """Each gate with the MLPs that come before it and after the last, if all have some.

        Where the layers do not stand in the order of their numbers, or some gate has no MLP, the
        file has another order: [].
        """
        ends = [
            [self.positions[next(iter(one.values()))] for one in ones] for ones in (mlps, gates)
        ]
        if any(places != sorted(places) for places in ends):
            return []
        stops = [bisect(ends[0], place) for place in ends[1]]
        together = [mlps[a:b] for a, b in zip([0, *stops], stops, strict=False)]
        return list(zip(together, gates, strict=True)) if all(together) else []

    def _by_number(self, mlps: list[Layer], gates: list[Layer]) -> list[tuple[list[Layer], Layer]]:
        """The first gate with the first MLP, and so on; or with the first two, if all are alike."""
        if len(mlps) == len(gates):
            return [([mlp], gate) for mlp, gate in zip(mlps, gates, strict=True)]
        pairs = list(zip(mlps[::2], mlps[1::2], strict=False))
        alike = all(self._shape(one) == self._shape(other) for one, other in pairs)
        twice = len(mlps) == 2 * len(gates) and alike
        return (
            [(list(pair), gate) for pair, gate in zip(pairs, gates, strict=False)] if twice else []
        )
