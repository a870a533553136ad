"""Arrays that have the names of a block: what `blocks` chooses from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from cbam_core.dialects import Dialect
from cbam_core.dialects.dialect import Leaves, counters, gates_of, pattern
from cbam_core.finding.tree import Tree
from cbam_core.weights import SWITCHES


@dataclass(frozen=True, eq=False)
class Spelling:
    """One of the sets of names of a dialect.

    Attributes:
        leaves: canonical name -> the owner's name and layout.
        is_bare: whether layers of other kinds have such names as well.
    """

    dialect: Dialect
    leaves: Leaves
    is_bare: bool = False

    @property
    def is_in_order(self) -> bool:
        """Whether the framework has numbered the layers, so that their order tells the blocks."""
        return any("{_}" in name for name, _ in self.leaves.values())

    @cache  # noqa: B019  # the spellings are there as long as the program
    def needs(self, found: frozenset[str]) -> tuple[str, ...]:
        """Canonical names that a block must have beside those that are found.

        Those of both gates, unless the one that is there may stand alone; of what is optional all
        or nothing.
        """
        gates = gates_of(found)
        if self.is_bare or not {*gates} & {*self.dialect.alone}:
            gates = gates_of(self.leaves)
        optional = {"spatial_descriptor", *self.dialect.optional}
        optional -= {SWITCHES.get(name) for name in found}
        return tuple(
            name
            for name in self.leaves
            if name not in found and name.startswith(gates) and SWITCHES.get(name) not in optional
        )


@cache
def spellings(dialect: Dialect) -> tuple[Spelling, ...]:
    """All sets of names of a dialect, those that tell most first."""
    return (
        *(Spelling(dialect, leaves) for leaves in dialect.spellings),
        *(Spelling(dialect, leaves, is_bare=True) for leaves in dialect.bare),
    )


@dataclass(frozen=True, eq=False)
class Group:
    """Arrays that have names of one block in one dialect, whether all of them are there or not.

    Attributes:
        prefix: what stands in front of the block's own names.
        number: the number that they have in common, if any.
        names: canonical name -> the name in the file, with dots.
        layer: what tells it from others with its prefix, if there are any.
    """

    spelling: Spelling
    prefix: str
    number: str
    names: dict[str, str]
    layer: str = ""

    @property
    def dialect(self) -> Dialect:
        return self.spelling.dialect

    @property
    def path(self) -> str:
        """Where the block stands; the number of its gates (ca1, sa1) follows a #."""
        path = self.prefix + self.layer if self.layer else self.prefix.rstrip(".")
        return f"{path}#{self.number}" if self.number else path

    @cached_property
    def arrays(self) -> frozenset[str]:
        return frozenset(self.names.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """Canonical names that the block should have and has not."""
        return self.spelling.needs(frozenset(self.names))

    def spelled(self, name: str) -> str:
        """What a name of the dialect's is in this block."""
        return self.prefix + name.replace("/", ".").replace("{n}", self.number).replace("{_}", "")

    def counters(self, tree: Tree) -> list[str]:
        """The names of its arrays that are no weights."""
        spelled = map(self.spelled, counters(self.spelling.leaves))
        return [name for name in spelled if name in tree.in_file]

    def modules(self) -> set[str]:
        """The modules that are the block's own, where nothing else should stand.

        Of a bare spelling it is all around it; of another the first part of each name, down to
        what the framework has numbered.
        """
        if self.spelling.is_bare and not self.spelling.is_in_order:
            return {self.prefix.rstrip(".")}
        return {self._module(canonical, name) for canonical, name in self.names.items()}

    def _module(self, canonical: str, name: str) -> str:
        parts = self.spelling.leaves[canonical][0].replace("/", ".").split(".")
        depth = next((i for i, part in enumerate(parts) if "{_}" in part), 0)
        return self.prefix + ".".join(name.removeprefix(self.prefix).split(".")[: depth + 1])


class Match(NamedTuple):
    """A name that is one of a spelling's.

    Attributes:
        numbers: those that the framework gave.
        position: of the array in the file.
    """

    canonical: str
    prefix: str
    number: str
    numbers: tuple[int, ...]
    name: str
    position: int


def matches(tree: Tree, tables: Sequence[Spelling]) -> dict[Spelling, list[Match]]:
    """Every name of every spelling, found by the ends of the names of the file.

    A name is looked up by its last parts without the numbers behind them, so that the time does
    not grow with the number of spellings.
    """
    index = defaultdict(list)
    for table in tables:
        for canonical, (name, _) in table.leaves.items():
            parts = name.replace("/", ".").replace("{n}", "").replace("{_}", "").split(".")
            index[".".join(map(_without_number, parts))].append((table, canonical, pattern(name)))
    longest = max((key.count(".") + 1 for key in index), default=0)
    found = defaultdict(list)
    for position, name in enumerate(tree):
        for key, end in _ends(name, longest):
            for table, canonical, expression in index.get(key, ()):
                match = expression.fullmatch(end)
                if match:
                    number, *numbers = match.groups()
                    prefix = name[: len(name) - len(end)]
                    given = tuple(int(n or 0) for n in numbers)
                    found[table].append(Match(canonical, prefix, number, given, name, position))
    return found


def _ends(name: str, longest: int) -> Iterator[tuple[str, str]]:
    """The last one, two, ... parts of a name, as they are looked up and as they are."""
    key = end = ""
    for part in reversed(name.rsplit(".", longest)[-longest:]):
        key = _without_number(part) + ("." + key if key else "")
        end = part + ("." + end if end else "")
        yield key, end


def _without_number(part: str) -> str:
    return part.rstrip("0123456789").rstrip("_") or part


def by_prefix(table: Spelling, found: Iterable[Match]) -> Iterator[Group]:
    """The groups of names that have their prefix and their number in common."""
    named: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for match in found:
        named[match.prefix, match.number][match.canonical] = match.name
    for (prefix, number), names in named.items():
        yield Group(table, prefix, number, names)


def largest(groups: Iterable[Group], among: Iterable[Group]) -> list[Group]:
    """Those that are not a part of another, and of two with the same arrays the longer names.

    A pair fc1, fc2 may belong to a bigger block, whole or not, and `ca.fc1` tells more than `fc1`.
    """
    owners: dict[str, list[Group]] = defaultdict(list)
    for group in among:
        for name in group.arrays:
            owners[name].append(group)
    return [
        group
        for group in groups
        if not any(
            group.arrays < other.arrays
            or (group.arrays == other.arrays and len(other.prefix) < len(group.prefix))
            for other in owners[next(iter(group.arrays))]
        )
    ]


def alike(groups: Iterable[Group], tree: Tree) -> list[list[Group]]:
    """The groups that claim the same arrays, in the order of the file."""
    claims: dict[frozenset[str], list[Group]] = defaultdict(list)
    for group in groups:
        claims[group.arrays].append(group)
    position = {name: place for place, name in enumerate(tree)}
    return sorted(claims.values(), key=lambda claim: min(position[n] for n in claim[0].arrays))
