"""Training checkpoints: one file for each form in which a run under way is kept, and their list.

A form's module has
- `CONVENTION`, that of its optimizers' slots, and `CONTAINERS`, the kinds of file it is written to;
- `leaves(architecture)`: canonical name -> name in the model, and layout, of every weight;
- `find(contents)`: the `Run` that a file tells, or None if it is of another form;
- `slots(contents, run, state, parameters)`: what the optimizer keeps, of a state without it;
- `contents(state)`: what is written for a state with slots in the form's convention.

A slot lies as its parameter does, so one table is that of both.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cbam_core import containers
from cbam_core.architectures import network_shapes
from cbam_core.contents import CheckpointError, Contents
from cbam_core.costs import is_statistic
from cbam_core.dialects.dialect import Leaves
from cbam_core.finding.blocks import check_values
from cbam_core.finding.nestings import unwrap
from cbam_core.slots import Convention
from cbam_core.training_files import canonical, flax, keras, tensorflow, torch
from cbam_core.training_files.run import Run
from cbam_core.training_files.stated import agreed, complete, stated
from cbam_core.training_state import TrainingState
from cbam_core.weights import as_canonical, check_weights

FORMS: dict[str, ModuleType] = {
    "canonical": canonical,
    "torch": torch,
    "flax": flax,
    "keras": keras,
    "tf": tensorflow,
}

# What a damaged or hostile file makes of code that believes its names.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def read_state(
    path: os.PathLike[str] | str, given: Mapping[str, Any] | None = None
) -> TrainingState:
    """The training run in a file, whoever saved it, with slots as `cbam_core.recipe` has them.

    Args:
        given: what the file does not tell: fields of a `Recipe`, "step", and "architecture" as its
            `to_dict` gives it.

    Raises:
        FileNotFoundError, ImportError: as `cbam_core.read`.
        CheckpointError: the file is damaged or hostile or holds no run; something is missing or
            contradicts what is given; or a slot has no counterpart. The message names it.

    Example:
        >>> import tempfile
        >>> from cbam_core import Architecture, Recipe, initial_network
        >>> small = Architecture("basic", (1,), (4,), num_classes=2)
        >>> recipe, weights = Recipe("sgd", 0.1, steps=200), initial_network(small)
        >>> path = tempfile.mkdtemp() + "/run.safetensors"
        >>> write_state(path, TrainingState(small, recipe, weights, step=7))
        >>> read_state(path).step
        7
    """
    contents = containers.read(path)
    try:
        run = find_run(contents)
        if run is None:
            raise ValueError(
                "holds no training run: none of its names are an optimizer's, as torch.save of "
                "state dicts, flax.serialization.to_bytes or Keras's save_weights write them"
            )
        return _state(contents, run, given or {})
    except _DAMAGE as error:
        raise CheckpointError(path, str(_as_value(error))) from error


def find_run(contents: Contents) -> Run | None:
    """What a file tells of a run under way; None if it holds none.

    Raises:
        ValueError: it is a run that no recipe describes, or contradicts itself.
    """
    try:
        run = next((run for form in FORMS.values() if (run := form.find(contents))), None)
        if run is None:
            return None
        told = agreed({"the file": stated(contents), "its optimizer": run.told})
    except _DAMAGE as error:
        raise _as_value(error) from error
    return dataclasses.replace(run, told=told)


def write_state(
    path: os.PathLike[str] | str, state: TrainingState, container: str | None = None
) -> None:
    """Write a run, with slots as `cbam_core.recipe` has them, whole or not at all.

    What is written is what a user of the container's framework saves: a torch file has the state
    dicts for the network, `make_optimizer` and `make_scheduler` of `cbam_torch`, and so on.

    Args:
        container: a key of `cbam_core.containers.CONTAINERS`; by the ending if None.

    Raises:
        ValueError: the state is not whole, or no run goes into such a file; nothing is written.

    Example: see `read_state`.
    """
    kind = containers.chosen(Path(path), container)
    form = next((form for form in FORMS.values() if kind.name in form.CONTAINERS), None)
    if form is None:
        endings = [
            containers.CONTAINERS[name].endings[0]
            for form in FORMS.values()
            for name in form.CONTAINERS
        ]
        raise ValueError(
            f"a {kind.about} ({kind.name}) holds no run under way; write one of "
            f"{', '.join(endings)}"
        )
    own = form.CONVENTION.from_canonical(state)
    containers.write(path, _native(form.contents(own)), kind)


def _state(contents: Contents, run: Run, given: Mapping[str, Any]) -> TrainingState:
    form = FORMS[run.form]
    _check_kinds(run, form.CONVENTION)
    words = agreed({"the file": run.told, "what is given": given})
    architecture, recipe, step = complete(words)
    leaves: Leaves = form.leaves(architecture)
    shapes = network_shapes(architecture)
    weights = _weights(contents, run, leaves, shapes)
    names = {leaves[name][0]: name for name in shapes if not is_statistic(name)}
    parameters = {own: leaves[name][1].shape(shapes[name], 2) for own, name in names.items()}
    state = TrainingState(architecture, recipe, weights, step=step)
    slots = {}
    for (kind, own), array in form.slots(contents, run, state, parameters).items():
        if own not in names:
            raise ValueError(f"slot {kind!r} is of {own!r}, which is no parameter of the network")
        slot = f"{kind}:{names[own]}"
        slots[slot] = _read(array, names[own], leaves, shapes)
        check_values(slot, slots[slot])
    return form.CONVENTION.to_canonical(dataclasses.replace(state, slots=slots))


def _as_value(error: Exception) -> ValueError:
    """An error with a text for the reader: of what was foreseen its own."""
    if type(error) is ValueError:
        return error
    return ValueError(
        f"holds no readable training run ({str(error)[:300] or type(error).__name__})"
    )


def _check_kinds(run: Run, convention: Convention) -> None:
    """Raise a ValueError where slots are those of no optimizer that a recipe has."""
    unknown = [kind for kind in run.kinds if kind not in convention.names.values()]
    if unknown:
        known = ", ".join(dict.fromkeys(convention.names.values()))
        raise ValueError(
            f"its optimizer keeps {', '.join(map(repr, unknown))} for the parameters, which has no "
            f"counterpart in other frameworks' sgd, adam and adamw; of {run.form} they keep {known}"
        )


def _weights(
    contents: Contents, run: Run, leaves: Leaves, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Canonical weights of the model in the file, which has to be this network and no more."""
    files = {bare: name for bare, name in unwrap(contents.arrays).items() if name not in run.slots}
    weights = {
        name: _read(contents.arrays[files[own]], name, leaves, shapes)
        for name, (own, _) in leaves.items()
        if own in files
    }
    known = {own for own, _ in leaves.values()}
    # Counters and generators of random numbers are no floats.
    others = {bare: contents.arrays[name] for bare, name in files.items() if bare not in known}
    others = {bare: array for bare, array in others.items() if array.dtype.kind == "f"}
    check_weights(shapes, {**weights, **others})
    for name, array in weights.items():
        check_values(leaves[name][0], array)
    return weights


def _read(
    array: np.ndarray, name: str, leaves: Leaves, shapes: Mapping[str, tuple[int, ...]]
) -> np.ndarray:
    """The array of a weight, or of its slot, in canonical layout; as it is if misshaped."""
    layout = leaves[name][1]
    fits = array.shape == layout.shape(shapes[name], 2)
    return as_canonical(layout.read(array) if fits else array)


def _native(contents: Contents) -> Contents:
    arrays = {name: as_canonical(array) for name, array in contents.arrays.items()}
    return Contents(arrays, contents.facts, contents.metadata)
