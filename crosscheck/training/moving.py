"""A training run that moves house: what one framework's optimizer keeps, as another's."""

from __future__ import annotations

from cbam_core import TrainingState
from cbam_core.slots import Convention
from crosscheck.frameworks import FRAMEWORKS


def port(state: TrainingState, src: str, dst: str) -> TrainingState:
    """The state of a run under way in framework `src`, as framework `dst` goes on with it.

    Parameters, statistics, step and recipe, with its schedule, stay as they are; the optimizer's
    slots take the names and the scale that they have in `dst`.

    Args:
        state: what a trainer's `state()` gave.
        src, dst: as `cbam check --frameworks` takes them, "torch", "keras-jax" and so on.

    Raises:
        ValueError: an unknown framework, a slot that has no counterpart in `dst`, or a state that
            is not whole; the message names it.

    Example:
        >>> import numpy as np
        >>> from cbam_core import Architecture, Recipe, initial_network
        >>> small = Architecture("basic", (1,), (4,), num_classes=2)
        >>> weights = initial_network(small)
        >>> slots = {f"trace:{name}": np.ones_like(array) for name, array in weights.items()
        ...          if not name.endswith((".mean", ".var"))}
        >>> recipe = Recipe("sgd", 0.5, steps=200, momentum=0.9)
        >>> state = TrainingState(small, recipe, weights, slots, step=10)
        >>> port(state, "flax", "torch").kinds
        ('momentum_buffer',)
        >>> port(state, "flax", "keras-jax").slots["momentum:head.linear.bias"]
        array([-0.5, -0.5], dtype=float32)
    """
    return convention("dst", dst).from_canonical(convention("src", src).to_canonical(state))


def convention(argument: str, framework: str) -> Convention:
    """How the framework's optimizers name and scale their slots.

    Raises:
        ValueError: an unknown framework.
    """
    if framework not in FRAMEWORKS:
        names = ", ".join(FRAMEWORKS)
        raise ValueError(f"{argument}={framework!r} is unknown; choose from {names}")
    return FRAMEWORKS[framework].library.convention
