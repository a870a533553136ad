"""Faults that only training shows, planted as those of `crosscheck.faults` are.

Those in the optimizer replace one of its equations, see `cbam_core.recipe`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cbam_core import Recipe
from crosscheck.faults import FAULTS, Fault, Target
from crosscheck.faults.backward import winner_takes_all
from crosscheck.faults.fault import Place
from crosscheck.faults.norm import kept_biased
from crosscheck.faults.places import function, pool, update
from crosscheck.training import reference
from crosscheck.training.cases import TrainingCase, TrainingPlan

# After so many steps a fault has to show.
STEPS = 4
Array = np.ndarray
Slots = dict[str, Array]


def training_step(target: Target) -> Place:
    """The step of the package's trainer: (trainer, x, target)."""
    return importlib.import_module(f"{target.package}.train").Trainer, "step"


def optimizer(
    equations: reference.Update | None = None, decays: Callable[[str], bool] | None = None
) -> Callable[..., Any]:
    """The framework's step, of which the optimizer's part is done anew, and wrongly."""

    def faulty(target: Target, right: Any, trainer: Any, x: Array, wanted: Array) -> float:
        convention = target.convention
        before = convention.to_canonical(trainer.state())
        loss = right(trainer, x, wanted)
        after = convention.to_canonical(trainer.state())
        parameters, slots = reference.advance(
            before.recipe,
            before.step,
            before.weights,
            trainer.gradients(),
            before.slots,
            equations,
            decays,
        )
        wrong = dataclasses.replace(after, weights={**after.weights, **parameters}, slots=slots)
        trainer.load(convention.from_canonical(wrong))
        return loss

    return faulty


def _sgd(direction: Callable[[Recipe, int, Array, Array], tuple[Array, Array]]) -> reference.Update:
    """SGD whose direction and momentum are these, of the step's number, gradient and old v."""

    def equations(
        recipe: Recipe, number: int, decay: float, p: Array, g: Array, slots: Slots
    ) -> tuple[Array, Slots]:
        moved, v = direction(recipe, number, g + decay * p, slots["momentum"])
        return p - recipe.rate(number) * moved, {"momentum": v}

    return equations


def _dampened(recipe: Recipe, number: int, g: Array, v: Array) -> tuple[Array, Array]:
    v = recipe.momentum * v + (1 - recipe.momentum) * g
    return v, v


def _plain(recipe: Recipe, number: int, g: Array, v: Array) -> tuple[Array, Array]:
    v = recipe.momentum * v + g
    return v, v


def _old_velocity(recipe: Recipe, number: int, g: Array, v: Array) -> tuple[Array, Array]:
    return g + recipe.momentum * v, recipe.momentum * v + g


def _uncorrected(recipe: Recipe, number: int, g: Array, v: Array) -> tuple[Array, Array]:
    before = recipe.rate(max(number - 1, 0))
    v = recipe.momentum * v * before / recipe.rate(number) + g
    return v, v


def _complement(recipe: Recipe, number: int, g: Array, v: Array) -> tuple[Array, Array]:
    v = (1 - recipe.momentum) * v + g
    return v, v


def _adam(divided: Callable[[Recipe, int, Array, Array], Array]) -> reference.Update:
    """Adam whose direction is this, of the step's number counted from 1 and both moments."""

    def equations(
        recipe: Recipe, number: int, decay: float, p: Array, g: Array, slots: Slots
    ) -> tuple[Array, Slots]:
        g, (b1, b2) = g + decay * p, recipe.betas
        m = b1 * slots["first"] + (1 - b1) * g
        s = b2 * slots["second"] + (1 - b2) * g**2
        direction = divided(recipe, number + 1, m, s)
        return p - recipe.rate(number) * direction, {"first": m, "second": s}

    return equations


def _epsilon_hat(recipe: Recipe, t: int, m: Array, s: Array) -> Array:
    b1, b2 = recipe.betas
    return m / (1 - b1**t) * np.sqrt(1 - b2**t) / (np.sqrt(s) + recipe.epsilon)


def _epsilon_in_the_root(recipe: Recipe, t: int, m: Array, s: Array) -> Array:
    b1, b2 = recipe.betas
    return m / (1 - b1**t) / np.sqrt(s / (1 - b2**t) + recipe.epsilon)


def _moments_uncorrected(recipe: Recipe, t: int, m: Array, s: Array) -> Array:
    return m / (np.sqrt(s) + recipe.epsilon)


def _decoupled_sgd(
    recipe: Recipe, number: int, decay: float, p: Array, g: Array, slots: Slots
) -> tuple[Array, Slots]:
    decayed = p - recipe.rate(number) * decay * p
    return reference.sgd(recipe, number, 0.0, decayed, g, slots)


def _summed(
    recipe: Recipe, number: int, decay: float, p: Array, g: Array, slots: Slots
) -> tuple[Array, Slots]:
    return reference.sgd(recipe, number, decay, p, 32 * g, slots)


def _one_step_late(
    recipe: Recipe, number: int, decay: float, p: Array, g: Array, slots: Slots
) -> tuple[Array, Slots]:
    return reference.adamw(recipe, max(number - 1, 0), decay, p, g, slots)


def _norm_complement(target: Target, right: Any, *arguments: Any) -> Any:
    match arguments:
        case layer, *others if hasattr(layer, "momentum"):
            momentum, layer.momentum = layer.momentum, 1 - layer.momentum
            try:
                return right(layer, *others)
            finally:
                layer.momentum = momentum
        case *others, momentum:  # flax and linen
            return right(*others, 1 - momentum)


def _fault(
    name: str,
    about: str,
    case: str,
    faulty: Callable[..., Any],
    where: Callable[[Target], Place] = training_step,
) -> Fault:
    traced = where is not training_step
    return Fault(name, about, case, where, faulty, mode="train", traced=traced)


_NETWORK = [
    _fault(
        "run-with-biased-variance",
        "the biased variance is kept",
        "digits-sgd",
        kept_biased,
        update,
    ),
    _fault(
        "run-with-momentum-complement",
        "a norm's momentum is that of the old value",
        "digits-sgd",
        _norm_complement,
        update,
    ),
    _fault(
        "run-with-winner-takes-all-over-space",
        "a gradient at ties goes to one position",
        "digits-ties",
        winner_takes_all,
        pool("max"),
    ),
    _fault(
        "run-with-winner-takes-all-over-channels",
        "a gradient at ties goes to one channel",
        "digits-ties",
        winner_takes_all,
        function("max"),
    ),
]

_DECAY = [
    _fault(
        "decay-of-every-parameter",
        "biases and norms decay too",
        "digits-sgd",
        optimizer(decays=lambda name: True),
    ),
    _fault(
        "decay-of-biases-and-norms",
        "they decay, and the kernels do not",
        "digits-adamw",
        optimizer(decays=lambda name: not name.endswith(".kernel")),
    ),
    _fault(
        "decay-forgotten",
        "no parameter decays",
        "digits-adamw",
        optimizer(decays=lambda name: False),
    ),
    _fault(
        "decoupled-decay-in-sgd",
        "Keras' weight_decay taken for torch's",
        "digits-sgd",
        optimizer(_decoupled_sgd),
    ),
    _fault(
        "coupled-decay-in-adamw",
        "Adam for AdamW",
        "digits-adamw",
        optimizer(reference.adam),
    ),
    _fault(
        "decoupled-decay-in-adam",
        "AdamW for Adam",
        "digits-adam",
        optimizer(reference.adamw),
    ),
]

_MOMENTUM = [
    _fault(
        "nesterov-forgotten",
        "plain momentum for Nesterov's",
        "digits-nesterov",
        optimizer(_sgd(_plain)),
    ),
    _fault(
        "nesterov-with-the-old-velocity",
        "g + mu v with the v of the step before",
        "digits-nesterov",
        optimizer(_sgd(_old_velocity)),
    ),
    _fault(
        "dampened-momentum",
        "the gradient counts 1 - mu",
        "digits-sgd",
        optimizer(_sgd(_dampened)),
    ),
    _fault(
        "complement-of-the-optimizer-s-momentum",
        "mu is the weight of the new value",
        "digits-sgd",
        optimizer(_sgd(_complement)),
    ),
    _fault(
        "momentum-not-corrected",
        "Keras' momentum keeps the rates of old steps",
        "digits-sgd-cosine",
        optimizer(_sgd(_uncorrected)),
    ),
]

_ADAM = [
    _fault(
        "epsilon-hat",
        "Adam's epsilon before the correction, as Keras has it",
        "digits-adam",
        optimizer(_adam(_epsilon_hat)),
    ),
    _fault(
        "epsilon-in-the-root",
        "Adam's epsilon under the root",
        "digits-adam",
        optimizer(_adam(_epsilon_in_the_root)),
    ),
    _fault(
        "moments-not-corrected",
        "Adam's moments as they begin, near 0",
        "digits-adam",
        optimizer(_adam(_moments_uncorrected)),
    ),
]

_LOSS_AND_RATE = [
    _fault(
        "summed-loss",
        "the sum over the batch for its mean",
        "digits-sgd",
        optimizer(_summed),
    ),
    _fault(
        "rate-one-step-late",
        "the schedule starts one step late",
        "digits-adamw-cosine",
        optimizer(_one_step_late),
    ),
]

TRAINING_FAULTS = {
    fault.name: fault for fault in (*_NETWORK, *_DECAY, *_MOMENTUM, *_ADAM, *_LOSS_AND_RATE)
}

ALL_FAULTS = FAULTS | TRAINING_FAULTS


def plan_training_faults(
    cases: Iterable[TrainingCase], faults: Iterable[Fault] = tuple(TRAINING_FAULTS.values())
) -> list[TrainingPlan]:
    """Each fault in the run that shows it, behind the same run without a fault, which is green."""
    by_name = {case.name: case for case in cases}
    faults = list(faults)
    shown = dict.fromkeys(fault.case for fault in faults)
    return [
        *(TrainingPlan(by_name[name], "float64", STEPS) for name in shown),
        *(TrainingPlan(by_name[fault.case], fault.dtype, STEPS, fault.name) for fault in faults),
    ]
