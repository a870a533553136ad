"""A training run under way, as data: all that has to move for it to go on somewhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.costs import is_statistic
from cbam_core.recipe import Recipe
from cbam_core.weights import check_weights


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands.

    Attributes:
        architecture: of the network.
        recipe: of the whole run.
        weights: canonical weights, running statistics among them.
        slots: "KIND:NAME" -> what the optimizer keeps for the parameter with the canonical NAME,
            in the parameter's canonical layout. Kinds and their meaning are those of the framework
            that made the state, see `cbam_core.slots`. Without slots a run begins.
        step: how many steps have been made.

    Example:
        >>> from cbam_core import initial_network
        >>> small = Architecture("basic", (1,), (4,), num_classes=2)
        >>> state = TrainingState(small, Recipe("sgd", 0.1, steps=200), initial_network(small))
        >>> state.step
        0
    """

    architecture: Architecture
    recipe: Recipe
    weights: Mapping[str, np.ndarray]
    slots: Mapping[str, np.ndarray] = field(default_factory=dict)
    step: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its slots."""
        return tuple(dict.fromkeys(name.partition(":")[0] for name in self.slots))

    def check_recipe(self, recipe: Recipe) -> None:
        """That it is one of a run of this recipe.

        Raises:
            ValueError: it is not; an optimizer would take it for what it is not.
        """
        if self.recipe != recipe:
            raise ValueError(
                f"state.recipe={self.recipe} is not that of the run, {recipe}; make a new trainer "
                f"of the state"
            )

    def check(self, kinds: tuple[str, ...]) -> None:
        """That it has the weights of its architecture, and slots of these kinds or none.

        Raises:
            ValueError: names are missing or unexpected or shapes differ, all of which are listed;
                or a run under way has no slots.
        """
        if self.step and kinds and not self.slots:
            raise ValueError(
                f"slots={{}} at step={self.step} of {self.recipe.optimizer!r}, expected "
                f"{', '.join(kinds)}; pass the slots too, or step=0 to begin"
            )
        check_weights(network_shapes(self.architecture), self.weights)
        check_weights(slot_shapes(self.architecture, kinds) if self.slots else {}, self.slots)


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
