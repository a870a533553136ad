"""Recipes and training states: what they refuse, and how they move between frameworks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from cbam_core import Architecture, Recipe, TrainingState, initial_network
from cbam_core.slots import KERAS, OPTAX, TORCH
from cbam_core.training_state import slot_shapes

SMALL = Architecture("basic", (1,), (4,), attention="cbam", num_classes=2)
SGD = Recipe("sgd", 0.5, steps=100, schedule="cosine", momentum=0.9, nesterov=True)
ADAM = Recipe("adam", 0.001, steps=100, weight_decay=0.01)
CONVENTIONS = (TORCH, KERAS, OPTAX)


def under_way(recipe, step=7):
    rng = np.random.default_rng(0)
    shapes = slot_shapes(SMALL, recipe.slots)
    slots = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return TrainingState(SMALL, recipe, initial_network(SMALL), slots, step)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "lion"}, "optimizer='lion' is unknown; choose from 'sgd', 'adam', 'adamw'"),
        ({"schedule": "step"}, "schedule='step' is unknown; choose from 'constant', 'cosine'"),
        ({"decayed": "none"}, "decayed='none' is unknown; choose from 'kernels', 'all'"),
        ({"loss": "hinge"}, "loss='hinge' is unknown; choose from 'cross_entropy', 'squared_err"),
        ({"steps": 0}, "steps=0 is below 1; pass a positive integer"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 is not positive; pass one above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan is not positive"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 is out of range; pass at least 0 and below 1"),
        ({"momentum": 1.0}, "momentum=1.0 is out of range; pass at least 0 and below 1"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) is out of range"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum=0.9 and nesterov=False belong to sgd"),
        ({"nesterov": True}, "nesterov=True needs a momentum above 0; pass momentum=0.9, say"),
    ],
)
def test_a_recipe_that_no_run_can_have_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"optimizer": "sgd", "learning_rate": 0.1, "steps": 10, **fields})


@pytest.mark.parametrize("recipe", [SGD, ADAM])
def test_a_recipe_travels_as_json(recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    with pytest.raises(ValueError, match="warmup: no field of a recipe; leave it out"):
        Recipe.from_dict({**recipe.to_dict(), "warmup": 5})


def test_a_cosine_comes_down_to_0_and_stays_there():
    assert [SGD.rate(step) for step in (0, 50, 100, 110)] == [0.5, 0.25, 0.0, 0.0]
    assert ADAM.rate(0) == ADAM.rate(99) == 0.001


def test_kernels_alone_decay():
    names = [name for name in slot_shapes(SMALL, ("",)) if ADAM.decays(name)]
    assert names
    assert all(name.endswith(".kernel") for name in names)
    assert not any(SGD.decays(name) for name in names)
    everything = dataclasses.replace(ADAM, decayed="all")
    assert all(everything.decays(name) for name in slot_shapes(SMALL, ("",)))


@pytest.mark.parametrize("recipe", [SGD, ADAM])
@pytest.mark.parametrize("target", CONVENTIONS, ids=lambda c: c.name)
@pytest.mark.parametrize("source", CONVENTIONS, ids=lambda c: c.name)
def test_slots_come_back_from_every_framework(recipe, source, target):
    state = under_way(recipe)
    there = target.from_canonical(source.to_canonical(source.from_canonical(state)))
    assert there.kinds == target.kinds(recipe)
    back = target.to_canonical(there)
    assert list(back.slots) == list(state.slots)
    for name, slot in state.slots.items():
        np.testing.assert_allclose(back.slots[name], slot, rtol=1e-15)
    assert (back.step, back.recipe, back.weights) == (7, recipe, state.weights)


def test_keras_momentum_has_the_rate_of_the_last_step_in_it():
    state = under_way(SGD)
    moved = KERAS.from_canonical(state).slots["momentum:head.linear.bias"]
    v = state.slots["momentum:head.linear.bias"]
    np.testing.assert_allclose(moved, -SGD.rate(6) * v, rtol=1e-15)


def test_a_slot_without_a_counterpart_is_refused_by_name():
    state = TORCH.from_canonical(under_way(ADAM))
    largest = {name.replace("exp_avg_sq", "max_exp_avg_sq"): a for name, a in state.slots.items()}
    amsgrad = dataclasses.replace(state, slots={**state.slots, **largest})
    message = "slot 'max_exp_avg_sq' of torch has no counterpart in other frameworks' adam; go on"
    with pytest.raises(ValueError, match=message):
        TORCH.to_canonical(amsgrad)


def test_a_state_that_is_not_whole_is_refused():
    state = under_way(ADAM)
    with pytest.raises(ValueError, match=r"slots={} at step=7 of 'adam', expected first, second"):
        OPTAX.from_canonical(dataclasses.replace(state, slots={}))
    less = dict(state.slots)
    del less["second:head.linear.bias"]
    with pytest.raises(ValueError, match=r"missing: second:head.linear.bias \(2,\)"):
        OPTAX.from_canonical(dataclasses.replace(state, slots=less))
    weights = {**state.weights, "head.linear.bias": np.zeros(3)}
    with pytest.raises(ValueError, match=r"misshaped: head.linear.bias has shape \(3,\)"):
        OPTAX.from_canonical(dataclasses.replace(state, weights=weights))
