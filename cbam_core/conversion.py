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
from cbam_core.checkpoints import FORMAT, Checkpoint, read
from cbam_core.contents import CheckpointError, Contents
from cbam_core.dialects import Dialect, named
from cbam_core.expression import express, spell
from cbam_core.spec import CBAMSpec


@dataclass(frozen=True)
class Conversion:
    """What became of a file.

    Attributes:
        container, dialect: of the target.
        blocks: path -> (dialect it was read in, spec it was written with).
        carried, dropped: names in the source of what belongs to no block.
    """

    container: str
    dialect: str
    blocks: dict[str, tuple[str, CBAMSpec]]
    carried: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


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
    """Read `source`, write its blocks to `target`, whole or not at all.

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
    kind = _container(Path(target), container)
    goal = _one(to or kind.dialect)
    on_step(f"reading {os.fspath(source)}")
    found = read(source, dialect, **fields)
    blocks: dict[str, tuple[CBAMSpec, dict[str, np.ndarray]]] = {}
    for path, block in found.blocks.items():
        try:
            blocks[path] = express(block.spec, block.weights, goal, fold=fold, fill=fill)
        except ValueError as error:
            raise CheckpointError(source, f"the block at {path!r}: {error}") from error
    rest = dict(found.rest) if keep_rest else {}
    # Alone, a block needs nothing around its names; beside others it stays where it was.
    around = {path: block.around if rest else "" for path, block in found.blocks.items()}
    arrays = _spelled(blocks, around, goal, _batches(found))
    twice = sorted(arrays.keys() & rest.keys())
    if twice:
        raise CheckpointError(source, f"holds {', '.join(twice)} besides a block of that name")
    specs = {path: spec for path, (spec, _) in blocks.items()}
    metadata = _metadata(specs, alone=not rest) if goal.name == "canonical" else {}
    facts = found.facts if keep_rest else {}
    on_step(f"writing {os.fspath(target)}")
    containers.write(target, Contents(arrays | rest, facts, metadata), kind)
    dropped = [] if keep_rest else [*found.rest, *found.facts]
    written = {path: (block.dialect, specs[path]) for path, block in found.blocks.items()}
    return Conversion(kind.name, goal.name, written, [*rest, *facts], dropped)


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


def _container(target: Path, name: str | None) -> containers.Container:
    if name is None:
        return containers.by_name(target)
    if name not in containers.CONTAINERS:
        raise ValueError(
            f"container={name!r} is unknown; choose from {', '.join(containers.CONTAINERS)}"
        )
    return containers.CONTAINERS[name]


def _metadata(specs: Mapping[str, CBAMSpec], *, alone: bool) -> dict[str, str]:
    """What makes a canonical file of arrays; a file of one block and nothing else is strict."""
    fields = {path: spec.to_dict() for path, spec in specs.items()}
    if list(specs) == [""] and alone:
        return {"cbam_format": FORMAT, "spec": json.dumps(fields[""])}
    return {"cbam_format": FORMAT, "specs": json.dumps(fields)}
