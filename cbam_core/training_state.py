"""A training run under way, as data: what has to move for it to go on somewhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.costs import is_statistic
from cbam_core.weights import check_weights


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands after `step` steps; the recipe, which does not change, goes beside it.

    Attributes:
        step: how many steps have been made.
        weights: canonical weights, running statistics among them.
        slots: "KIND:NAME" -> what the optimizer keeps for the parameter with the canonical NAME,
            in the parameter's canonical layout. The kinds and their meaning are those of the
            framework that made the state; `crosscheck.training.port` translates them.
    """

    step: int
    weights: Mapping[str, np.ndarray]
    slots: Mapping[str, np.ndarray]

    @property
    def kinds(self) -> list[str]:
        """The kinds of its slots."""
        return list(dict.fromkeys(name.partition(":")[0] for name in self.slots))

    def check(self, architecture: Architecture, kinds: tuple[str, ...]) -> None:
        """That weights and slots are those of a run of `architecture` with slots of these `kinds`.

        Raises:
            ValueError: names are missing or unexpected or shapes differ; all of them are listed.
        """
        check_weights(network_shapes(architecture), self.weights)
        check_weights(slot_shapes(architecture, kinds), self.slots)


def slot_shapes(architecture: Architecture, kinds: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Name, "KIND:NAME", -> shape of all slots of a network's parameters.

    >>> small = Architecture("basic", (1,), (4,), num_classes=2)
    >>> list(slot_shapes(small, ("momentum",)))[:2]
    ['momentum:stem.conv.kernel', 'momentum:stem.norm.scale']
    """
    return {
        f"{kind}:{name}": shape
        for kind in kinds
        for name, shape in network_shapes(architecture).items()
        if not is_statistic(name)
    }
