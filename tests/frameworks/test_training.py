"""What every package's trainer must do: one test file for all frameworks."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from cbam_core import Architecture, Recipe, TrainingState
from crosscheck.training import reference
from crosscheck.training.job import quantities
from tests import networks
from tests.compare import assert_equal

SMALL = Architecture(
    "basic",
    (1,),
    (4,),
    attention="cbam",
    spec={"reduction": 2, "kernel_size": 3},
    stem="cifar",
    num_classes=3,
)
RECIPES = {
    "nesterov": Recipe(
        "sgd", 0.1, 5, "cosine", weight_decay=0.01, momentum=0.9, nesterov=True
    ),
    "plain": Recipe("sgd", 0.1, 5),
    "adam": Recipe("adam", 0.01, 5, weight_decay=0.01, decayed="all", loss="squared_error"),
    "adamw": Recipe("adamw", 0.01, 5, "cosine", weight_decay=0.1, betas=(0.8, 0.99)),
}  # fmt: skip


@pytest.fixture
def trainer_of(framework):
    """The package's trainer, in float64, of a state with the reference's slots."""
    trainer, convention = framework.train.Trainer, framework.CONVENTION
    return lambda state, dtype="float64": trainer(convention.from_canonical(state), dtype=dtype)


def start(recipe):
    return TrainingState(SMALL, recipe, networks.weights(SMALL))


def batches(recipe, first, last):
    rng = np.random.default_rng(5)
    pictures = rng.standard_normal((last, 6, 9, 7, 3))
    labels = rng.integers(0, 3, (last, 6))
    values = rng.standard_normal((last, 6, 3))
    targets = labels if recipe.loss == "cross_entropy" else values
    return list(zip(pictures, targets, strict=True))[first:]


def state_of(framework, trainer):
    return framework.CONVENTION.to_canonical(trainer.state())


@pytest.mark.parametrize("name", RECIPES)
def test_three_steps_equal_the_reference(framework, trainer_of, name):
    recipe = RECIPES[name]
    expected = reference.run(start(recipe), batches(recipe, 0, 3))
    trainer = trainer_of(start(recipe))
    losses = np.array([trainer.step(x, target) for x, target in batches(recipe, 0, 3)])
    state = state_of(framework, trainer)
    assert (state.step, state.recipe, state.architecture) == (3, recipe, SMALL)
    found = quantities(losses, trainer.gradients(), state)
    assert_equal(found, quantities(expected.losses, expected.gradients, expected.state), 1e-10)


@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_a_run_goes_on_where_another_stood(framework, trainer_of, name):
    recipe = RECIPES[name]
    stood = reference.run(start(recipe), batches(recipe, 0, 2)).state
    expected = reference.run(stood, batches(recipe, 2, 4))
    trainer = trainer_of(start(recipe))
    trainer.step(*batches(recipe, 0, 1)[0])
    trainer.load(framework.CONVENTION.from_canonical(stood))
    losses = np.array([trainer.step(x, target) for x, target in batches(recipe, 2, 4)])
    found = quantities(losses, trainer.gradients(), state_of(framework, trainer))
    assert_equal(found, quantities(expected.losses, expected.gradients, expected.state), 1e-10)


def test_a_state_without_its_slots_is_refused(framework, trainer_of):
    state = dataclasses.replace(start(RECIPES["adamw"]), step=2)
    kinds = ", ".join(framework.CONVENTION.kinds(state.recipe))
    trainer = framework.train.Trainer
    with pytest.raises(ValueError, match=re.escape(f"step=2 of 'adamw', expected {kinds}")):
        trainer(state, dtype="float64")


def test_a_state_of_another_run_is_refused_whole(framework, trainer_of):
    trainer = trainer_of(start(RECIPES["plain"]))
    before = trainer.state()
    zeros = {name: np.zeros_like(array) for name, array in before.weights.items()}
    other = dataclasses.replace(SMALL, num_classes=4)
    for changed, message in (
        ({"recipe": RECIPES["adamw"]}, "is not that of the run, Recipe(optimizer='sgd'"),
        (
            {"architecture": other},
            "misshaped: head.linear.kernel has shape (4, 3), expected (4, 4)",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            trainer.load(dataclasses.replace(before, weights=zeros, **changed))
    after = trainer.state().weights
    assert all(after[name].tobytes() == array.tobytes() for name, array in before.weights.items())


def test_it_says_in_evaluation_what_the_reference_says(trainer_of):
    x, weights = batches(RECIPES["plain"], 0, 1)[0][0], networks.weights(SMALL)
    expected = networks.reference_network.run(SMALL, weights, x).output
    trainer = trainer_of(start(RECIPES["plain"]))
    assert_equal({"": trainer.logits(x)}, {"": expected}, 1e-12)


def test_parameters_and_slots_keep_their_dtype(framework, trainer_of):
    trainer = trainer_of(start(RECIPES["adamw"]), "float32")
    trainer.step(*batches(RECIPES["adamw"], 0, 1)[0])
    state = trainer.state()
    arrays = [*state.weights.values(), *state.slots.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
