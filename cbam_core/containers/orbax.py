"""orbax directories, in which Flax's users keep trees of arrays.

One holds a tree; or what a step keeps side by side, such as "params" and "opt_state", each a tree
of its own; or the steps of a CheckpointManager, of which the latest is read. An array is called by
its path in the tree, without the "value" that ends it in the state of an nnx module.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cbam_core.containers import archive, nesting
from cbam_core.contents import MAX_ARRAYS, MAX_HEADER, Contents, by_number, check_size
from cbam_core.weights import as_canonical


def read(path: Path) -> Contents:
    """The tree, the trees, or the latest step at `path`."""
    steps = _steps(path)
    folder = steps[max(steps)] if steps else path
    leaves: dict[str, np.ndarray | str] = {}
    for prefix, tree in _trees(folder).items():
        leaves |= {prefix + name: leaf for name, leaf in _leaves(path, tree).items()}
    custom = _json(folder / "_CHECKPOINT_METADATA").get("custom_metadata") or {}
    ours = custom.get(nesting.RESERVED, {})
    facts: dict[str, Any] = {"step": max(steps)} if steps else {}
    facts |= {name: leaf for name, leaf in leaves.items() if isinstance(leaf, str)}
    arrays = {name: leaf for name, leaf in leaves.items() if not isinstance(leaf, str)}
    arrays = {name: as_canonical(arrays[name]) for name in sorted(arrays, key=by_number)}
    return Contents(arrays, facts | ours.get("facts", {}), ours.get("metadata", {}))


def write(path: Path, contents: Contents) -> None:
    """A directory with one tree, in which a name's slashes are branches, and {} an empty one."""
    branches = {name: fact for name, fact in contents.facts.items() if fact == {}}
    facts = {name: fact for name, fact in contents.facts.items() if name not in branches}
    ours = {"facts": facts, "metadata": dict(contents.metadata)}
    tree = nesting.nest(Contents(contents.arrays, branches), as_canonical)
    # orbax makes the directory itself, and would leave litter beside it if it were ended.
    inner = path / "tree"
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(
            inner,
            args=ocp.args.StandardSave(tree),
            custom_metadata={nesting.RESERVED: ours},
        )
    for file in inner.iterdir():
        file.rename(path / file.name)
    inner.rmdir()


def _steps(path: Path) -> dict[int, Path]:
    """Number -> folder, of the steps that a CheckpointManager keeps ("12", "checkpoint_12")."""
    found = {re.fullmatch(r"(?:\w+_)?(\d{1,18})", one.name): one for one in path.iterdir()}
    return {int(match[1]): one for match, one in found.items() if match and _trees(one)}


def _trees(folder: Path) -> dict[str, Path]:
    """What stands in front of the names of a tree -> its folder."""
    if (folder / "_METADATA").is_file():
        return {"": folder}
    if not folder.is_dir():
        return {}
    items = [one for one in folder.iterdir() if (one / "_METADATA").is_file()]
    return {"" if one.name == "default" else f"{one.name}/": one for one in sorted(items)}


def _leaves(path: Path, folder: Path) -> dict[str, np.ndarray | str]:
    """Name -> array or text, of one tree; `path` is what it is a part of.

    Raises:
        ValueError: its metadata is damaged, leads out of the folder, or claims more than a network
            has.
        CheckpointError: its arrays claim more bytes than the files can have.
    """
    _check_keys(_json(folder / "_METADATA"))
    handler = ocp.PyTreeCheckpointHandler()
    tree = handler.metadata(folder).tree
    arrays = [leaf for leaf in jax.tree.leaves(tree) if _is_array(leaf)]
    check_size(path, sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in arrays))
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    how = jax.tree.map(lambda leaf: as_numpy if _is_array(leaf) else ocp.RestoreArgs(), tree)
    restored = handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=how))
    leaves, _ = jax.tree.flatten_with_path(restored)
    return {_name(keys): leaf for keys, leaf in leaves}


def _check_keys(metadata: dict[str, Any]) -> None:
    """Raise a ValueError where the keys of a tree, of which orbax makes paths, can't be right."""
    entries = metadata["tree_metadata"].values()
    if len(entries) > MAX_ARRAYS:
        raise ValueError(f"it holds {len(entries)} arrays, and {MAX_ARRAYS} are the most")
    for entry in entries:
        keys = [str(key["key"]) for key in entry["key_metadata"]]
        if len(keys) > nesting.MAX_DEPTH:
            raise ValueError("it nests deeper than any weights do")
        for key in keys:
            archive.check_name(key)


def _name(keys: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/").removesuffix("/value")


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, ocp.metadata.ArrayMetadata)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_HEADER:
        raise ValueError(f"its {path.name} has {path.stat().st_size} bytes")
    return json.loads(path.read_bytes())
