"""This project's own form: a canonical safetensors file with slots, recipe and step beside it.

The network is what `cbam_core.write` stores; a slot is called by its kind and its parameter,
"momentum:stem.conv.kernel".
"""

from __future__ import annotations

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.contents import FORMAT, Contents
from cbam_core.dialects.dialect import Leaves
from cbam_core.dialects.layouts import IN_OUT, SPACE_IN_OUT, VECTOR
from cbam_core.slots import CANONICAL
from cbam_core.training_files.run import Parameters, Run, Slots
from cbam_core.training_files.stated import in_words
from cbam_core.training_state import TrainingState

CONVENTION = CANONICAL
CONTAINERS = ("safetensors",)

# Axes -> layout, in files of all frameworks but PyTorch.
LAYOUTS = {1: VECTOR, 2: IN_OUT, 4: SPACE_IN_OUT}


def leaves(architecture: Architecture) -> Leaves:
    shapes = network_shapes(architecture)
    return {name: (name, LAYOUTS[len(shape)]) for name, shape in shapes.items()}


def find(contents: Contents) -> Run | None:
    if not {"cbam_format", "recipe"} <= contents.metadata.keys():
        return None
    form = contents.metadata["cbam_format"]
    if form != FORMAT:
        raise ValueError(f"has cbam_format={form!r} in its metadata, expected {FORMAT!r}")
    slots = tuple(name for name in contents.arrays if ":" in name)
    return Run("canonical", slots, tuple(dict.fromkeys(n.partition(":")[0] for n in slots)))


def slots(contents: Contents, run: Run, state: TrainingState, parameters: Parameters) -> Slots:
    parted = {slot: slot.partition(":") for slot in run.slots}
    return {(kind, name): contents.arrays[slot] for slot, (kind, _, name) in parted.items()}


def contents(state: TrainingState) -> Contents:
    words = in_words(state.architecture, state.recipe, state.step)
    return Contents({**state.weights, **state.slots}, {}, {"cbam_format": FORMAT, **words})
