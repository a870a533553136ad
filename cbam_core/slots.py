"""What each framework's optimizers keep for a parameter: its name there, and what it means.

Of the equations of `cbam_core.recipe` the momentum v, and the first and second moments m and s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cbam_core.recipe import Recipe
from cbam_core.training_state import TrainingState


@dataclass(frozen=True)
class Convention:
    """How a library's optimizers name and scale their slots.

    Attributes:
        name: of the library.
        names: a kind of `Recipe.slots` -> the kind's name there.
        rate_in_momentum: whether its momentum is -rate * v, with the rate of the last step, and
            not v itself.
    """

    name: str
    names: Mapping[str, str]
    rate_in_momentum: bool = False

    def kinds(self, recipe: Recipe) -> tuple[str, ...]:
        """The kinds of slots of the recipe's optimizer.

        >>> KERAS.kinds(Recipe("adam", 0.001, steps=200))
        ('momentum', 'velocity')
        """
        return tuple(self.names[kind] for kind in recipe.slots)

    def to_canonical(self, state: TrainingState) -> TrainingState:
        """The state of this library with slots as `cbam_core.recipe` has them.

        Raises:
            ValueError: a slot has no counterpart, or the state is not whole; the message names it.
        """
        own, canonical = self.kinds(state.recipe), state.recipe.slots
        unknown = [kind for kind in state.kinds if kind not in own]
        if unknown:
            raise ValueError(
                f"slot {', '.join(map(repr, unknown))} of {self.name} has no counterpart in other "
                f"frameworks' {state.recipe.optimizer}; go on with an optimizer without it"
            )
        state.check(own)
        return self._translated(
            state, dict(zip(own, canonical, strict=True)), 1 / self._scale(state)
        )

    def from_canonical(self, state: TrainingState) -> TrainingState:
        """The state with slots as this library has them.

        Raises:
            ValueError: the state is not whole; the message names what is missing.
        """
        state.check(state.recipe.slots)
        own, canonical = self.kinds(state.recipe), state.recipe.slots
        return self._translated(state, dict(zip(canonical, own, strict=True)), self._scale(state))

    def _scale(self, state: TrainingState) -> float:
        scaled = self.rate_in_momentum and state.recipe.optimizer == "sgd" and state.step
        return -state.recipe.rate(state.step - 1) if scaled else 1.0

    def _translated(
        self, state: TrainingState, names: Mapping[str, str], scale: float
    ) -> TrainingState:
        slots = {}
        for full, slot in state.slots.items():
            kind, _, name = full.partition(":")
            slots[f"{names[kind]}:{name}"] = np.asarray(slot * slot.dtype.type(scale))
        return dataclasses.replace(state, slots=slots)


CANONICAL = Convention("canonical", {kind: kind for kind in ("momentum", "first", "second")})
TORCH = Convention(
    "torch", {"momentum": "momentum_buffer", "first": "exp_avg", "second": "exp_avg_sq"}
)
KERAS = Convention(
    "keras", {"momentum": "momentum", "first": "momentum", "second": "velocity"}, True
)
OPTAX = Convention("optax", {"momentum": "trace", "first": "mu", "second": "nu"})
