"""TensorFlow's form: tf.train.Checkpoint(model=..., optimizer=...).

Adam's slots are called after their variables, "optimizer/adam/net_stem_conv_kernel_0_velocity";
SGD's have numbers, in the order of which keras.py tells. Such a checkpoint holds the graph of a
program's objects, so none is written here: a canonical file and `cbam_tf.train.load_state` take a
run to TensorFlow.
"""

from __future__ import annotations

import re

from cbam_core.contents import Contents
from cbam_core.slots import KERAS
from cbam_core.training_files.flax import leaves
from cbam_core.training_files.keras import check_order
from cbam_core.training_files.run import Parameters, Run, Slots
from cbam_core.training_files.stated import optimizer_called
from cbam_core.training_state import TrainingState

CONVENTION = KERAS
CONTAINERS = ()
__all__ = ["CONTAINERS", "CONVENTION", "find", "leaves", "slots"]

_COUNT = "optimizer/iterations"
_NAMED = re.compile(
    r"optimizer/(?P<optimizer>[^/]+)/(?P<variable>.+)_\d+_(?P<kind>[a-z]+(_[a-z]+)*)"
)
_NUMBERED = re.compile(r"optimizer/_?(?P<list>[a-z]+(_[a-z]+)*)/(?P<number>\d{1,9})")
_KINDS = {"momentums": "momentum", "velocities": "velocity"}


def find(contents: Contents) -> Run | None:
    if _COUNT not in contents.arrays:
        return None
    kinds, told = {}, {"step": contents.arrays[_COUNT].item()}
    for name in contents.arrays:
        if match := _NAMED.fullmatch(name):
            kinds[name] = match["kind"]
            told |= optimizer_called(match["optimizer"])
        elif match := _NUMBERED.fullmatch(name):
            kinds[name] = _KINDS.get(match["list"], match["list"])
    return Run("tf", tuple(kinds), tuple(dict.fromkeys(kinds.values())), told)


def slots(contents: Contents, run: Run, state: TrainingState, parameters: Parameters) -> Slots:
    kept: Slots = {}
    for slot in run.slots:
        array = contents.arrays[slot]
        if match := _NAMED.fullmatch(slot):
            kept[match["kind"], _owner(match["variable"], parameters)] = array
        elif match := _NUMBERED.fullmatch(slot):
            owner = list(parameters)[int(match["number"])]
            check_order(slot, array, owner, parameters)
            kept[_KINDS[match["list"]], owner] = array
    return kept


def _owner(variable: str, parameters: Parameters) -> str:
    """The parameter that a variable is called after, whatever model it stands in."""
    called = {parameter: parameter.replace("/", "_") for parameter in parameters}
    owners = [one for one in parameters if f"_{variable}".endswith(f"_{called[one]}")]
    if not owners:
        raise ValueError(f"its optimizer keeps slots for {variable!r}, no parameter of the network")
    return max(owners, key=len)
