"""What a file tells of a training run under way, before its network is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# A parameter's name in the model -> its shape there; in the order of the canonical weights.
Parameters = Mapping[str, tuple[int, ...]]
# (kind, name of the parameter in the model) -> what the optimizer keeps for it, as it lies there.
Slots = dict[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class Run:
    """A training run as its file tells it.

    Attributes:
        form: who wrote it, a key of `cbam_core.training_files.FORMS`.
        slots: names in the file of what the optimizer keeps for the parameters.
        kinds: of these slots, as that form's library calls them; of Keras's files, which number
            them, none.
        told: fields of a `Recipe`, "step" and "architecture", as far as the optimizer and its
            schedule tell them or the file says them.
    """

    form: str
    slots: tuple[str, ...]
    kinds: tuple[str, ...]
    told: Mapping[str, Any] = field(default_factory=dict)
