"""A training run in float64 NumPy: the judge of the frameworks' networks and optimizers in it.

The network is `cbam_core.reference_network`; the optimizers are the equations of
`cbam_core.recipe`, whose slots a state here has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cbam_core import Recipe, TrainingState, reference_network

Array = np.ndarray
# (recipe, number of the step, weight decay, parameter, gradient, slots) -> parameter and slots.
Update = Callable[..., tuple[Array, dict[str, Array]]]


@dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes:
        losses: of every step, before it.
        gradients: canonical name -> the gradient of the last step's loss.
        state: after the last step, with the slots that `Recipe.slots` names.
    """

    losses: Array
    gradients: dict[str, Array]
    state: TrainingState


def run(
    state: TrainingState,
    batches: Iterable[tuple[Array, Array]],
) -> Run:
    """Continue from `state` by one step for each of `batches`, pictures and targets.

    Example:
        >>> from cbam_core import Architecture, initial_network
        >>> small = Architecture("basic", (1,), (4,), num_classes=2)
        >>> recipe = Recipe("sgd", 0.1, steps=2)
        >>> start = TrainingState(small, recipe, initial_network(small))
        >>> batch = np.random.default_rng(0).standard_normal((4, 16, 16, 3)), np.array([0, 1, 0, 1])
        >>> run(start, [batch, batch]).losses.round(1)
        array([0.7, 0.1])
    """
    architecture, recipe = state.architecture, state.recipe
    weights = {name: np.asarray(array, np.float64) for name, array in state.weights.items()}
    slots = {name: np.asarray(array, np.float64) for name, array in state.slots.items()}
    losses = []
    for number, (x, target) in enumerate(batches, state.step):
        step = reference_network.run(architecture, weights, x, training=True)
        loss, by_logits = LOSSES[recipe.loss](step.output, target)
        _, gradients = step.pullback(by_logits)
        losses.append(loss)
        updated, slots = advance(recipe, number, weights, gradients, slots)
        weights |= {**updated, **step.statistics}
    reached = state.step + len(losses)
    after = TrainingState(architecture, recipe, weights, slots, reached)
    return Run(np.array(losses), gradients, after)


def advance(
    recipe: Recipe,
    number: int,
    weights: Mapping[str, Array],
    gradients: Mapping[str, Array],
    slots: Mapping[str, Array],
    update: Update | None = None,
    decays: Callable[[str], bool] | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The parameters and the slots behind the optimizer's step with this number.

    Args:
        slots: without any the run begins.
        update, decays: what replaces the recipe's own equations, and its choice of parameters.
    """
    update, decays = update or UPDATES[recipe.optimizer], decays or recipe.decays
    parameters: dict[str, Array] = {}
    after: dict[str, Array] = {}
    for name, gradient in gradients.items():
        zeros = np.zeros_like(gradient)
        own = {kind: slots.get(f"{kind}:{name}", zeros) for kind in recipe.slots}
        decay = recipe.weight_decay if decays(name) else 0.0
        parameters[name], own = update(recipe, number, decay, weights[name], gradient, own)
        after |= {f"{kind}:{name}": slot for kind, slot in own.items()}
    return parameters, after


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Mean over the batch, and its gradient by the logits (N, K)."""
    shifted = logits - logits.max(1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    chosen = np.eye(logits.shape[1])[labels]
    return -(chosen * log_shares).sum() / len(logits), (np.exp(log_shares) - chosen) / len(logits)


def squared_error(values: Array, target: Array) -> tuple[float, Array]:
    """Mean over all numbers, and its gradient by the values (N, K)."""
    difference = values - target
    return (difference**2).mean(), 2 * difference / difference.size


def sgd(
    recipe: Recipe, number: int, decay: float, p: Array, g: Array, slots: dict[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """The parameter and its slots after the step with this number."""
    g = g + decay * p
    if not recipe.momentum:
        return p - recipe.rate(number) * g, slots
    v = recipe.momentum * slots["momentum"] + g
    direction = g + recipe.momentum * v if recipe.nesterov else v
    return p - recipe.rate(number) * direction, {"momentum": v}


def adam(
    recipe: Recipe, number: int, decay: float, p: Array, g: Array, slots: dict[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """The parameter and its slots after the step with this number."""
    g = g + decay * p
    (b1, b2), t = recipe.betas, number + 1
    m, s = b1 * slots["first"] + (1 - b1) * g, b2 * slots["second"] + (1 - b2) * g**2
    direction = m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + recipe.epsilon)
    return p - recipe.rate(number) * direction, {"first": m, "second": s}


def adamw(
    recipe: Recipe, number: int, decay: float, p: Array, g: Array, slots: dict[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """The parameter and its slots after the step with this number."""
    return adam(recipe, number, 0.0, p - recipe.rate(number) * decay * p, g, slots)


UPDATES: dict[str, Update] = {"sgd": sgd, "adam": adam, "adamw": adamw}
LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}
