"""TensorFlow's form: tf.train.Checkpoint(model=..., optimizer=...), whose slots have names.

A slot is called after its variable, "optimizer/adam_w/backbone_stem_conv_kernel_0_momentum". Such a
checkpoint holds the graph of a program's objects, so none is written here: a canonical file and
`cbam_tf.train.load_state` take a run to TensorFlow.
"""

from __future__ import annotations

import re

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.contents import Contents
from cbam_core.dialects.dialect import Leaves
from cbam_core.dialects.layouts import IN_OUT, SPACE_IN_OUT, VECTOR
from cbam_core.slots import KERAS
from cbam_core.training_files.run import Parameters, Run, Slots
from cbam_core.training_files.stated import optimizer_called
from cbam_core.training_state import TrainingState

CONVENTION = KERAS
CONTAINERS = ()

_LAYOUTS = {1: VECTOR, 2: IN_OUT, 4: SPACE_IN_OUT}
_COUNT = "optimizer/iterations"
_SLOT = re.compile(
    r"optimizer/(?P<optimizer>[^/]+)/(?P<variable>.+)_\d+_(?P<kind>[a-z]+(_[a-z]+)?)"
)


def leaves(architecture: Architecture) -> Leaves:
    shapes = network_shapes(architecture)
    return {n: (n.replace(".", "/"), _LAYOUTS[len(shape)]) for n, shape in shapes.items()}


def find(contents: Contents) -> Run | None:
    if _COUNT not in contents.arrays:
        return None
    found = {name: match for name in contents.arrays if (match := _SLOT.fullmatch(name))}
    told = {"step": contents.arrays[_COUNT].item()}
    for called in {match["optimizer"] for match in found.values()}:
        told |= optimizer_called(called)
    return Run("tf", tuple(found), tuple(dict.fromkeys(m["kind"] for m in found.values())), told)


def slots(contents: Contents, run: Run, state: TrainingState, parameters: Parameters) -> Slots:
    kept: Slots = {}
    for slot in run.slots:
        match = _SLOT.fullmatch(slot)
        assert match is not None
        owners = [p for p in parameters if f"_{match['variable']}".endswith(f"_{_called(p)}")]
        if not owners:
            raise ValueError(f"{slot!r} is of no parameter of the network")
        kept[match["kind"], max(owners, key=len)] = contents.arrays[slot]
    return kept


def _called(parameter: str) -> str:
    return parameter.replace("/", "_")
