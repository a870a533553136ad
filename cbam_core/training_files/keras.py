"""Keras's form: a .weights.h5 file of a compiled model, with its optimizer's variables by number.

The first counts the steps and the second is the rate; then come the slots of each parameter, in the
order in which the optimizer was built. They have no names, so that order has to be the one of
`cbam_keras.train.make_optimizer`, the canonical one; the shapes show if it is another.
"""

from __future__ import annotations

import re

import numpy as np

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.contents import Contents
from cbam_core.costs import is_statistic
from cbam_core.dialects.dialect import Leaves
from cbam_core.slots import KERAS
from cbam_core.training_files.canonical import LAYOUTS
from cbam_core.training_files.run import Parameters, Run, Slots
from cbam_core.training_files.stated import in_words, optimizer_called
from cbam_core.training_state import TrainingState

CONVENTION = KERAS
CONTAINERS = ("keras3",)

_NUMBERS = {"kernel": 0, "bias": 1, "scale": 0, "mean": 2, "var": 3}
_VARIABLES = "optimizer/vars"
_COUNT, _RATE = f"{_VARIABLES}/0", f"{_VARIABLES}/1"


def leaves(architecture: Architecture) -> Leaves:
    shapes = network_shapes(architecture)
    return {name: (_name(name), LAYOUTS[len(shape)]) for name, shape in shapes.items()}


def find(contents: Contents) -> Run | None:
    if _COUNT not in contents.arrays:
        return None
    names = [name for name in contents.arrays if name.startswith(f"{_VARIABLES}/")]
    slots = tuple(name for name in names if name not in (_COUNT, _RATE))
    told = {"step": contents.arrays[_COUNT].item()}
    called = contents.facts.get("optimizer")
    if called is not None:
        told |= optimizer_called(called)
    return Run("keras", slots, (), told)


def slots(contents: Contents, run: Run, state: TrainingState, parameters: Parameters) -> Slots:
    recipe = state.recipe
    owners = [(kind, name) for name in parameters for kind in KERAS.kinds(recipe)]
    if len(owners) != len(run.slots):
        raise ValueError(
            f"its optimizer has {len(run.slots)} slots, and {recipe.optimizer} with "
            f"momentum={recipe.momentum} {len(owners)} for {len(parameters)} parameters"
        )
    kept = dict(zip(owners, (contents.arrays[slot] for slot in run.slots), strict=True))
    for ((_, name), array), slot in zip(kept.items(), run.slots, strict=True):
        check_order(slot, array, name, parameters)
    return kept


def check_order(slot: str, array: np.ndarray, owner: str, parameters: Parameters) -> None:
    """Raise a ValueError if a numbered slot can't be the owner's."""
    if array.shape != parameters[owner]:
        raise ValueError(
            f"{slot} has shape {array.shape}, and {owner} {parameters[owner]}: its optimizer was "
            f"built for the parameters in another order; build it with make_optimizer of "
            f"cbam_keras.train or cbam_tf.train"
        )


def contents(state: TrainingState) -> Contents:
    own, recipe = leaves(state.architecture), state.recipe
    arrays = {own[name][0]: weight for name, weight in state.weights.items()}
    dtype = next(iter(state.weights.values())).dtype
    # The rate of the last step, which is the one in Keras's momentum.
    rate = recipe.rate(max(state.step - 1, 0))
    arrays |= {_COUNT: np.array(state.step, np.int32), _RATE: np.array(rate, dtype)}
    trained = [name for name in own if not is_statistic(name)]
    kinds = KERAS.kinds(recipe)
    for number, (name, kind) in enumerate(((n, k) for n in trained for k in kinds), 2):
        slot = state.slots.get(f"{kind}:{name}", np.zeros_like(state.weights[name]))
        arrays[f"{_VARIABLES}/{number}"] = slot
    return Contents(arrays, {}, in_words(state.architecture, recipe, state.step))


def _name(canonical: str) -> str:
    """Keras calls a model's layers by their classes, and numbers these."""
    first, *path, leaf = canonical.split(".")
    stage = re.fullmatch(r"stage(\d+)", first)
    if stage:
        number = int(stage[1]) - 1
        first = f"layers/stage_{number}" if number else "layers/stage"
    elif first != "head":
        first = f"layers/{'cbam' if first == 'tail' else first}"
    return "/".join([first, *path, "vars", str(_NUMBERS[leaf])])
