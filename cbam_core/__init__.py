"""What a CBAM is, as data: specs, canonical weights, initial values, costs and the reference.

>>> import cbam_core
>>> spec = cbam_core.CBAMSpec.preset("official", channels=64)
>>> cbam_core.parameters(spec)
680
"""

import importlib
from typing import TYPE_CHECKING, Any

from cbam_core import reference
from cbam_core.architectures import ARCHITECTURES, Architecture, network_shapes
from cbam_core.costs import flops, parameters
from cbam_core.folding import fold
from cbam_core.initial import SCHEMES, initial_network, initial_weights
from cbam_core.inputs import check_input, check_pictures
from cbam_core.recipe import Recipe
from cbam_core.spec import PRESETS, CBAMSpec
from cbam_core.training_state import TrainingState
from cbam_core.weights import (
    STATISTICS,
    as_canonical,
    check_weights,
    spatial_maps,
    weight_shapes,
)

if TYPE_CHECKING:
    from cbam_core.checkpoints import Checkpoint, read, write
    from cbam_core.contents import CheckpointError
    from cbam_core.conversion import Conversion, convert
    from cbam_core.dialects import DIALECTS
    from cbam_core.finding.blocks import Block
    from cbam_core.training_files import read_state, write_state

# Whoever builds a block needs no tables of public files, so these are imported at their first use.
_AT_FIRST_USE = {
    "Block": "finding.blocks",
    "Checkpoint": "checkpoints",
    "CheckpointError": "contents",
    "Conversion": "conversion",
    "DIALECTS": "dialects",
    "convert": "conversion",
    "read": "checkpoints",
    "read_state": "training_files",
    "write": "checkpoints",
    "write_state": "training_files",
}


def __getattr__(name: str) -> Any:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"cbam_core.{_AT_FIRST_USE[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "ARCHITECTURES",
    "DIALECTS",
    "PRESETS",
    "SCHEMES",
    "STATISTICS",
    "Architecture",
    "Block",
    "CBAMSpec",
    "Checkpoint",
    "CheckpointError",
    "Conversion",
    "Recipe",
    "TrainingState",
    "as_canonical",
    "check_input",
    "check_pictures",
    "check_weights",
    "convert",
    "flops",
    "fold",
    "initial_network",
    "initial_weights",
    "network_shapes",
    "parameters",
    "read",
    "read_state",
    "reference",
    "spatial_maps",
    "weight_shapes",
    "write",
    "write_state",
]  # fmt: skip
