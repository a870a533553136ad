"""Flax's form: a tree of "params", "batch_stats", "opt_state" and "step".

As flax.serialization.to_bytes and orbax save it, of linen and, by nnx.to_pure_dict, of nnx. What
optax keeps stands under the parameter's path in a tree of its own, "opt_state/1/0/trace/stem/...";
of the recipe it tells nothing but the kinds of its slots.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.contents import Contents
from cbam_core.costs import is_statistic
from cbam_core.dialects.dialect import Leaves
from cbam_core.finding.nestings import unwrap
from cbam_core.slots import OPTAX
from cbam_core.training_files.canonical import LAYOUTS
from cbam_core.training_files.run import Parameters, Run, Slots
from cbam_core.training_files.stated import counted, in_words, numbers, stated
from cbam_core.training_state import TrainingState

CONVENTION = OPTAX
CONTAINERS = ("msgpack", "orbax")


def leaves(architecture: Architecture) -> Leaves:
    shapes = network_shapes(architecture)
    return {n: (n.replace(".", "/"), LAYOUTS[len(shape)]) for n, shape in shapes.items()}


def find(contents: Contents) -> Run | None:
    said = numbers(contents)
    nestings = {part for name in contents.arrays for part in name.split("/")}
    # SGD without momentum at a constant rate keeps nothing at all, so then the file has to say it.
    if "params" not in nestings or ("opt_state" not in nestings and not stated(contents)):
        return None
    parted = _parted(contents)
    kinds = tuple(dict.fromkeys(kind for kind, _ in parted.values()))
    counts = [n for n in said if "opt_state/" in n and n.endswith("/count")]
    counts += [name for name in said if name in ("step", "optimizer/step")]
    told = counted(said, counts)
    if kinds == ("trace",):
        told["optimizer"] = "sgd"
    return Run("flax", tuple(parted), kinds, told)


def slots(contents: Contents, run: Run, state: TrainingState, parameters: Parameters) -> Slots:
    return {owner: contents.arrays[slot] for slot, owner in _parted(contents).items()}


def contents(state: TrainingState) -> Contents:
    """As `make_optimizer` of cbam_flax and cbam_flax.linen chains optax's transformations."""
    arrays: dict[str, np.ndarray] = {}
    for name, weight in state.weights.items():
        collection = "batch_stats" if is_statistic(name) else "params"
        arrays[f"{collection}/{name.replace('.', '/')}"] = weight
    recipe, count = state.recipe, np.array(state.step, np.int32)
    rule = "opt_state" if recipe.optimizer == "adamw" else "opt_state/1"
    for full, slot in state.slots.items():
        kind, _, name = full.partition(":")
        arrays[f"{rule}/0/{kind}/{name.replace('.', '/')}"] = slot
    if recipe.optimizer != "sgd":
        arrays[f"{rule}/0/count"] = count
    rate = f"{rule}/{2 if recipe.optimizer == 'adamw' else 1}"
    if recipe.schedule == "cosine":
        arrays[f"{rate}/count"] = count
    decay = "opt_state/1" if recipe.optimizer == "adamw" else "opt_state/0"
    # What keeps no array is a branch without leaves.
    branches = (f"{decay}/inner_state", f"{rule}/0", rate)
    facts: dict[str, object] = {
        b: {} for b in branches if not any(name.startswith(f"{b}/") for name in arrays)
    }
    words = in_words(state.architecture, recipe, state.step)
    return Contents({**arrays, "step": count}, facts, words)


def _parted(contents: Contents) -> dict[str, tuple[str, str]]:
    """Name of a slot -> its kind and its parameter.

    Raises:
        ValueError: optax keeps something that belongs to no parameter, and is no count.
    """
    parameters, parted = set(unwrap(contents.arrays)), {}
    for name, array in contents.arrays.items():
        _, nesting, path = f"/{name}".partition("/opt_state/")
        if not nesting or (path.endswith("count") and not array.ndim):
            continue
        parted[name] = _owner(name, path.split("/"), parameters)
    return parted


def _owner(name: str, path: list[str], parameters: Iterable[str]) -> tuple[str, str]:
    for place in range(1, len(path)):
        if "/".join(path[place:]) in parameters:
            return path[place - 1], "/".join(path[place:])
    raise ValueError(
        f"it keeps {name!r}, of no parameter; go on with optax's sgd, adam or adamw, which keep "
        f"slots and a count"
    )
