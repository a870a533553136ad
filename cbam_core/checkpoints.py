"""Weight files: what a file holds as CBAMs, whoever wrote it, and canonical files of our own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from cbam_core import containers
from cbam_core.architectures import Architecture, network_shapes
from cbam_core.contents import FORMAT, CheckpointError, Contents
from cbam_core.dialects import Dialect, named
from cbam_core.finding import blocks
from cbam_core.finding.blocks import Block
from cbam_core.finding.nestings import unwrap
from cbam_core.networks.finding import find_network
from cbam_core.networks.network import Network, canonical_network, check_depth
from cbam_core.spec import CBAMSpec
from cbam_core.training_files import Run, find_run
from cbam_core.weights import as_canonical, check_weights, weight_shapes

Owner = TypeVar("Owner", Block, Network)
Described = TypeVar("Described", CBAMSpec, Architecture)


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds.

    Attributes:
        blocks: path in the model -> the CBAM or squeeze-and-excitation block that stands there; a
            block that is all of the file has the path "". The number of gates that have one (ca1,
            sa1) stands behind a #.
        rest: name in the file -> array, of all that belongs to no block and no network.
        facts: what stands beside the arrays ("epoch", "arch").
        lookalikes: path -> the dialect of what looks like a CBAM and is not the paper's.
        network: the whole network that the file holds, or why it is none.
        run: what it tells of a training run under way, why no recipe describes that, or None.
    """

    path: str
    blocks: Mapping[str, Block]
    rest: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    lookalikes: Mapping[str, Dialect] = field(default_factory=dict)
    network: Network | str = "it holds a block alone"
    run: Run | str | None = None

    @property
    def dialect(self) -> str:
        """The dialect of the blocks, several with commas; the network's if it has none."""
        if not self.blocks and isinstance(self.network, Network):
            return self.network.dialect
        return ", ".join(dict.fromkeys(block.dialect for block in self.blocks.values()))

    @property
    def architecture(self) -> Architecture:
        """That of the whole network; a CheckpointError if the file holds none."""
        if isinstance(self.network, str):
            raise CheckpointError(self.path, f"holds no whole network: {self.network}")
        return self.network.architecture

    @property
    def spec(self) -> CBAMSpec:
        """That of the one block; a CheckpointError if there are several."""
        if len(self.blocks) != 1:
            raise CheckpointError(
                self.path,
                f"holds {len(self.blocks)} blocks ({', '.join(self.blocks)}), each with a spec of "
                f"its own; take .blocks[path].spec",
            )
        return next(iter(self.blocks.values())).spec

    @property
    def described(self) -> Architecture | CBAMSpec:
        """That of the whole network or of the one block; a CheckpointError if it is neither."""
        is_block = isinstance(self.network, str) and len(self.blocks) == 1
        return self.spec if is_block else self.architecture

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Canonical weights: of the network or the one block; of several under their paths."""
        if isinstance(self.network, Network):
            return self.network.weights
        if len(self.blocks) == 1:
            return next(iter(self.blocks.values())).weights
        return {
            f"{path}.{name}" if path else name: array
            for path, block in self.blocks.items()
            for name, array in block.weights.items()
        }


def read(path: os.PathLike[str] | str, dialect: str | None = None, **fields: Any) -> Checkpoint:
    """Read the CBAMs of a weight file, or a whole network, whoever wrote it.

    Args:
        dialect: the implementation that wrote it, a key of `cbam_core.DIALECTS`, or several with
            commas; if None, and several write such names, that is an error which lists them.
        fields: of the spec, what no array shows, such as channel_pools=("avg", "max", "lp"), in
            the place of what its dialect has.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the library that reads such a file is not installed.
        ValueError: an unknown dialect or field.
        CheckpointError: the file is damaged or hostile, or holds no CBAM, or several
            implementations write such names.

    Example:
        >>> import tempfile, cbam_core
        >>> spec = cbam_core.CBAMSpec(64)
        >>> path = tempfile.mkdtemp() + "/block.safetensors"
        >>> cbam_core.write(path, cbam_core.initial_weights(spec), spec)
        >>> found = cbam_core.read(path)
        >>> found.dialect, found.spec
        ('canonical', CBAMSpec(64))
    """
    asked = [one.name for one in named(dialect)] if dialect is not None else []
    CBAMSpec(1).replace(**fields)
    contents = containers.read(path)
    if "cbam_format" in contents.metadata and asked in ([], ["canonical"]):
        return _canonical(path, contents, fields)
    names = unwrap(contents.arrays)
    arrays = {bare: contents.arrays[name] for bare, name in names.items()}
    try:
        found, lookalikes = blocks.find(arrays, dialect, fields)
    except ValueError as error:
        raise CheckpointError(path, str(error)) from error
    try:
        network: Network | str = find_network(arrays, found)
    except ValueError as error:
        network = str(error)
    if not found and isinstance(network, str):
        raise CheckpointError(path, _nothing(arrays, dialect, lookalikes))
    found = {place: _in_file(block, names) for place, block in found.items()}
    taken = _names(found.values())
    if isinstance(network, Network):
        network = _in_file(network, names)
        taken |= _names([network])
    rest = {name: array for name, array in contents.arrays.items() if name not in taken}
    run = _run(contents)
    return Checkpoint(os.fspath(path), found, rest, contents.facts, lookalikes, network, run)


def _run(contents: Contents) -> Run | str | None:
    try:
        return find_run(contents)
    except ValueError as error:
        return str(error)


def _names(owners: Iterable[Block | Network]) -> set[str]:
    return {name for owner in owners for name in (*owner.names.values(), *owner.counters)}


def _in_file(owner: Owner, names: Mapping[str, str]) -> Owner:
    """The block or network with the names that its arrays have in the file, nestings and all."""
    own = {canonical: names[name] for canonical, name in owner.names.items()}
    bare, whole = next((name, names[name]) for name in owner.names.values())
    counters = {names[name]: array for name, array in owner.counters.items()}
    return replace(owner, names=own, counters=counters, around=whole[: whole.rindex(bare)])


def write(
    path: os.PathLike[str] | str, weights: Mapping[str, np.ndarray], spec: CBAMSpec | Architecture
) -> None:
    """Write canonical `weights` of a block or a network as a safetensors file, whole or not at all.

    The file is written beside the target, synced and renamed, so that a reader, or a crash at any
    moment, finds the old file or the new one.

    Args:
        spec: of the block, or the network's architecture.

    Raises:
        ValueError: the weights are not those of the spec; nothing has been written.

    Example:
        >>> import tempfile, cbam_core
        >>> spec = cbam_core.CBAMSpec(64)
        >>> path = tempfile.mkdtemp() + "/block.safetensors"
        >>> cbam_core.write(path, cbam_core.initial_weights(spec), spec)
        >>> cbam_core.read(path).spec
        CBAMSpec(64)
    """
    is_network = isinstance(spec, Architecture)
    check_weights(network_shapes(spec) if isinstance(spec, Architecture) else spec, weights)
    arrays = {name: as_canonical(array) for name, array in weights.items()}
    metadata = {"architecture" if is_network else "spec": json.dumps(spec.to_dict())}
    contents = Contents(arrays, {}, {"cbam_format": FORMAT, **metadata})
    containers.write(path, contents, containers.CONTAINERS["safetensors"])


def _canonical(
    path: os.PathLike[str] | str, contents: Contents, fields: Mapping[str, Any]
) -> Checkpoint:
    """A file with the spec in its metadata, which leaves nothing to find out."""
    form = contents.metadata["cbam_format"]
    if form != FORMAT:
        raise CheckpointError(
            path, f"has cbam_format={form!r} in its metadata, expected {FORMAT!r}"
        )
    if "architecture" in contents.metadata:
        return _canonical_network(path, contents, fields)
    try:
        specs = {place: _told(s, fields) for place, s in _specs(contents.metadata).items()}
        shapes = {
            name: (path, leaf, shape)
            for path, spec in specs.items()
            for leaf, shape in weight_shapes(spec).items()
            for name in [f"{path}.{leaf}" if path else leaf]
        }
        in_file = {bare: name for bare, name in unwrap(contents.arrays).items() if bare in shapes}
        own = {bare: contents.arrays[name] for bare, name in in_file.items()}
        # A file of one block is strict; in a network other layers stand beside the blocks.
        strict = contents.arrays if "spec" in contents.metadata else own
        check_weights({name: shape for name, (_, _, shape) in shapes.items()}, strict)
        for name, array in own.items():
            blocks.check_values(name, array)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(path, f"holds no valid CBAM: {error}") from error
    found = {place: Block("canonical", spec, {}, {}, {}, {}) for place, spec in specs.items()}
    for name, (place, leaf, _) in shapes.items():
        found[place].weights[leaf], found[place].names[leaf] = own[name], name
    found = {place: _in_file(block, in_file) for place, block in found.items()}
    taken = set(in_file.values())
    rest = {name: array for name, array in contents.arrays.items() if name not in taken}
    return Checkpoint(os.fspath(path), found, rest, contents.facts)


def _canonical_network(
    path: os.PathLike[str] | str, contents: Contents, fields: Mapping[str, Any]
) -> Checkpoint:
    """A file with the architecture in its metadata."""
    try:
        described = json.loads(contents.metadata["architecture"])
        if not isinstance(described, dict):
            raise ValueError("its metadata has no architecture, which is a JSON object")
        architecture = Architecture.from_dict(described)
        check_depth(architecture.depths)
        architecture = _told(architecture, fields)
        network, found = canonical_network(architecture, contents.arrays)
    except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(path, f"holds no valid network: {error}") from error
    rest = {name: array for name, array in contents.arrays.items() if name not in network.names}
    run = _run(contents)
    return Checkpoint(os.fspath(path), found, rest, contents.facts, {}, network, run)


def _told(described: Described, fields: Mapping[str, Any]) -> Described:
    """A spec, or an architecture, with what the caller says that no array shows."""
    if isinstance(described, Architecture):
        told = replace(described, spec=tuple({**dict(described.spec), **fields}.items()))
        is_alike = not fields or network_shapes(told) == network_shapes(described)
    else:
        told = described.replace(**fields)
        is_alike = weight_shapes(told) == weight_shapes(described)
    if not is_alike:
        said = ", ".join(f"{field}={value!r}" for field, value in fields.items())
        raise ValueError(
            f"its arrays are those of {described!r}, and {said} was passed; leave it out"
        )
    return told


def _specs(metadata: Mapping[str, str]) -> dict[str, CBAMSpec]:
    """Path -> spec, of a canonical file's metadata."""
    if "specs" in metadata:
        specs = json.loads(metadata["specs"])
    else:
        specs = {"": json.loads(metadata.get("spec", "null"))}
    if not (isinstance(specs, dict) and specs and all(isinstance(s, dict) for s in specs.values())):
        raise ValueError("its metadata has no spec, which is a JSON object")
    return {path: CBAMSpec.from_dict(fields) for path, fields in specs.items()}


def _nothing(
    arrays: Mapping[str, np.ndarray], dialect: str | None, lookalikes: Mapping[str, Dialect]
) -> str:
    """Why a file has no CBAM."""
    if lookalikes:
        path, found = next(iter(lookalikes.items()))
        return f"holds no CBAM: what stands at {path!r} is {found.about}: {found.lookalike}"
    others = _others(arrays) if dialect else ""
    kind = f"of the dialect {dialect!r}" if dialect else "in any dialect that this project knows"
    names = ", ".join(list(arrays)[:3])
    return (
        others
        or blocks.nearest(arrays, dialect)
        or f"holds no CBAM {kind}: its {len(arrays)} arrays are called {names}, ..."
    )


def _others(arrays: Mapping[str, np.ndarray]) -> str:
    """What a file holds in dialects that were not asked for."""
    try:
        found, _ = blocks.find(arrays)
    except ValueError:
        return ""
    path, block = next(iter(found.items()), ("", None))
    return f"is written in {block.dialect} (at {path!r}); pass that dialect" if block else ""
