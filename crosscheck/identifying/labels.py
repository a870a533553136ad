"""What others call a spec: presets, dialects, and the attributes of the module itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cbam_core import PRESETS, CBAMSpec
from cbam_core.finding import blocks
from crosscheck.identifying.subject import Subject

# Attributes in which modules keep the reduction that they were asked for.
RATIOS = ("reduction", "ratio", "reduction_ratio", "r", "rd_ratio")


def presets(spec: CBAMSpec) -> tuple[str, ...]:
    """The presets that are `spec` at some width of the hidden layer."""
    width = {"hidden": spec.hidden, "reduction": spec.reduction, "rank": spec.rank}
    made = {name: CBAMSpec.preset(name, spec.channels, **width) for name in PRESETS}
    return tuple(name for name, preset in made.items() if preset == spec)


def dialect(arrays: Mapping[str, np.ndarray]) -> str:
    """The dialect whose names these arrays have, if it is one."""
    try:
        found, lookalikes = blocks.find(arrays)
    except ValueError:
        return ""
    names = [block.dialect for block in found.values()]
    names += [other.name for other in lookalikes.values()]
    return names[0] if len(names) == 1 else ""


def ratio_notes(subject: Subject, spec: CBAMSpec) -> list[str]:
    """Attributes that ask for another width of the hidden layer than the weights have."""
    if not spec.has_channel_gate:
        return []
    asked = {
        (name, value)
        for part in subject.probe.modules(subject.module)
        for name in RATIOS
        for value in [getattr(part, name, None)]
        if isinstance(value, int) and not isinstance(value, bool) and value > 0
    }
    return [
        f"its attribute {name}={value} asks for {max(1, spec.channels // value)} hidden units, and "
        f"it has {spec.hidden_channels}: the ratio is ignored"
        for name, value in sorted(asked)
        if max(1, spec.channels // value) != spec.hidden_channels
    ]
