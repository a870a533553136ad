"""From one dialect and container to another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cbam_core import containers
from cbam_core.architectures import Architecture
from cbam_core.checkpoints import Checkpoint, read
from cbam_core.contents import FORMAT, CheckpointError, Contents
from cbam_core.dialects import Dialect, named
from cbam_core.expression import express, spell
from cbam_core.networks.dialects import NETWORK_DIALECTS, NetworkDialect
from cbam_core.networks.network import Network
from cbam_core.networks.spelling import spell_network
from cbam_core.spec import CBAMSpec
from cbam_core.weights import as_canonical


@dataclass(frozen=True)
class Conversion:
    """What became of a file.

    Attributes:
        container, dialect: of the target.
        source_dialect: in which the source was read; several are joined by commas.
        blocks: path -> (dialect it was read in, spec it was written with).
        carried, dropped: names in the source of what belongs to no block, and in a network to no
            layer.
        network: what the file is as a whole, if it was written as a network.
        is_part_of_a_network: whether the source is a whole network, and its blocks were written
            one by one.
    """

    container: str
    dialect: str
    blocks: dict[str, tuple[str, CBAMSpec]]
    carried: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    network: Architecture | None = None
    source_dialect: str = ""
    is_part_of_a_network: bool = False


def convert(
    source: os.PathLike[str] | str,
    target: os.PathLike[str] | str,
    *,
    dialect: str | None = None,
    to: str | None = None,
    container: str | None = None,
    fold: bool = False,
    fill: bool = False,
    keep_rest: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
    **fields: Any,
) -> Conversion:
    """Read `source`, write it to `target`, whole or not at all.

    A whole network is written as one where the target's dialect has networks, under its names;
    otherwise the blocks are written one by one.

    Args:
        dialect: of the source, where its names do not tell.
        to: the dialect of the target; that of its container if None.
        container: of the target; by its ending if None.
        fold: whether a norm that the target's dialect has not is folded into the convolution,
            which is exact in evaluation.
        fill: whether biases that the target's dialect always has are written as zeros.
        keep_rest: whether what belongs to no block goes along, under its own names; then the blocks
            keep what is around theirs ("state_dict/module."), so that the file loads as before.
        on_step: called with what is done next, for progress.
        fields: of the source's spec, what no array shows.

    Raises:
        CheckpointError: the source can't be read, or the target's dialect can't express a block;
            the message lists every reason.
        ValueError: an unknown dialect or container, or one that can't be written.
    """
    kind = containers.chosen(Path(target), container)
    goal = _one(to or kind.dialect)
    network_goal = NETWORK_DIALECTS.get(to or "", NETWORK_DIALECTS.get(goal.name))
    on_step(f"reading {os.fspath(source)}")
    found = read(source, dialect, **fields)
    rest = dict(found.rest) if keep_rest else {}
    try:
        if isinstance(found.network, Network) and (goal.name == "canonical" or network_goal):
            around = found.network.around if rest else ""
            written = _network(found.network, network_goal, around, fold=fold, fill=fill)
        else:
            written = _blocks(found, goal, fold=fold, fill=fill, alone=not rest)
    except ValueError as error:
        raise CheckpointError(source, str(error)) from error
    twice = sorted(written.arrays.keys() & rest.keys())
    if twice:
        raise CheckpointError(source, f"holds {', '.join(twice)} besides a block of that name")
    facts = found.facts if keep_rest else {}
    on_step(f"writing {os.fspath(target)}")
    contents = Contents(written.arrays | rest, facts, written.metadata)
    containers.write(target, contents, kind)
    dropped = [] if keep_rest else [*found.rest, *found.facts]
    blocks = {path: (block.dialect, written.specs[path]) for path, block in found.blocks.items()}
    name = network_goal.name if written.network and network_goal else goal.name
    return Conversion(
        kind.name,
        name,
        blocks,
        [*rest, *facts],
        dropped,
        written.network,
        found.dialect,
        is_part_of_a_network=isinstance(found.network, Network) and written.network is None,
    )


@dataclass(frozen=True)
class _Written:
    """What goes into the target, and with which specs, by the paths of the source."""

    arrays: dict[str, np.ndarray]
    specs: Mapping[str, CBAMSpec]
    metadata: dict[str, str]
    network: Architecture | None = None


def _network(
    network: Network, dialect: NetworkDialect | None, around: str, *, fold: bool, fill: bool
) -> _Written:
    """A whole network, canonical or in a dialect."""
    architecture = network.architecture
    if dialect is None:
        fields = json.dumps(architecture.to_dict())
        metadata = {"cbam_format": FORMAT, "architecture": fields}
        specs = dict(architecture.attentions())
        arrays = {name: as_canonical(array) for name, array in network.weights.items()}
    else:
        spelled, specs = spell_network(network, dialect, fold=fold, fill=fill)
        arrays = {around + name: array for name, array in spelled.items()}
        metadata = {}
    in_source = {network.places[path]: spec for path, spec in specs.items()}
    return _Written(arrays, in_source, metadata, architecture)


def _blocks(
    found: Checkpoint, dialect: Dialect, *, fold: bool, fill: bool, alone: bool
) -> _Written:
    """The blocks, one by one; `alone` if nothing else goes into the file."""
    if not found.blocks:
        raise ValueError(
            f"holds a network without a CBAM, and the dialect {dialect.name} has no networks; "
            f"write canonical or {', '.join(NETWORK_DIALECTS)}"
        )
    blocks: dict[str, tuple[CBAMSpec, dict[str, np.ndarray]]] = {}
    for path, block in found.blocks.items():
        try:
            blocks[path] = express(block.spec, block.weights, dialect, fold=fold, fill=fill)
        except ValueError as error:
            raise ValueError(f"the block at {path!r}: {error}") from error
    # Alone, a block needs nothing around its names; beside others it stays where it was.
    around = {path: "" if alone else block.around for path, block in found.blocks.items()}
    arrays = _spelled(blocks, around, dialect, _batches(found))
    specs = {path: spec for path, (spec, _) in blocks.items()}
    metadata = _metadata(specs, alone=alone) if dialect.name == "canonical" else {}
    return _Written(arrays, specs, metadata)


def _spelled(
    blocks: Mapping[str, tuple[CBAMSpec, dict[str, np.ndarray]]],
    around: Mapping[str, str],
    goal: Dialect,
    batches: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The arrays of all blocks, by the names that `goal` has for them behind what is around."""
    arrays: dict[str, np.ndarray] = {}
    for where in dict.fromkeys(around.values()):
        own = {path: block for path, block in blocks.items() if around[path] == where}
        arrays |= {where + name: array for name, array in spell(own, goal, batches).items()}
    return arrays


def _batches(found: Checkpoint) -> dict[str, np.ndarray]:
    """Path -> how many batches the block's norm has seen, where the file says so."""
    return {
        path: batches for path, block in found.blocks.items() for batches in block.counters.values()
    }


def _one(dialect: str) -> Dialect:
    """The dialect of the target."""
    first, *others = named(dialect, "to")
    if others:
        raise ValueError(f"to={dialect!r} is several dialects; pass one")
    return first


def _metadata(specs: Mapping[str, CBAMSpec], *, alone: bool) -> dict[str, str]:
    """What makes a canonical file of arrays; a file of one block and nothing else is strict."""
    fields = {path: spec.to_dict() for path, spec in specs.items()}
    if list(specs) == [""] and alone:
        return {"cbam_format": FORMAT, "spec": json.dumps(fields[""])}
    return {"cbam_format": FORMAT, "specs": json.dumps(fields)}
