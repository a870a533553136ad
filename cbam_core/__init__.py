"""What a CBAM is, as data: specs, canonical weights, initial values, costs and the reference.

>>> import cbam_core
>>> spec = cbam_core.CBAMSpec.preset("official", channels=64)
>>> cbam_core.parameters(spec)
680
"""

from cbam_core import reference
from cbam_core.architectures import ARCHITECTURES, Architecture, network_shapes
from cbam_core.blocks import Block
from cbam_core.checkpoints import Checkpoint, read, write
from cbam_core.contents import CheckpointError
from cbam_core.conversion import Conversion, convert
from cbam_core.costs import flops, parameters
from cbam_core.dialects import DIALECTS
from cbam_core.initial import SCHEMES, initial_network, initial_weights
from cbam_core.inputs import check_input, check_pictures
from cbam_core.spec import PRESETS, CBAMSpec
from cbam_core.weights import (
    STATISTICS,
    as_canonical,
    check_weights,
    spatial_maps,
    weight_shapes,
)

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
    "as_canonical",
    "check_input",
    "check_pictures",
    "check_weights",
    "convert",
    "flops",
    "initial_network",
    "initial_weights",
    "network_shapes",
    "parameters",
    "read",
    "reference",
    "spatial_maps",
    "weight_shapes",
    "write",
]  # fmt: skip
