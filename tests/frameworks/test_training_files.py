"""Runs that a framework's users save are read, and they go on with what is written."""

from __future__ import annotations

import numpy as np
import pytest

from cbam_core import Architecture, Recipe, TrainingState, read_state, write_state
from cbam_core.training_state import slot_shapes
from tests import networks

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
    "sgd": Recipe("sgd", 0.1, steps=20, momentum=0.9, weight_decay=5e-4),
    "plain": Recipe("sgd", 0.1, steps=20, schedule="cosine"),
    "nesterov": Recipe("sgd", 0.1, steps=20, schedule="cosine", momentum=0.9, nesterov=True),
    "adam": Recipe("adam", 0.01, steps=20, schedule="cosine", weight_decay=5e-4, decayed="all"),
    "adamw": Recipe("adamw", 0.01, steps=20, weight_decay=0.05),
}
BEFORE, STEPS = 5, 8


def batches(first: int, last: int):
    for step in range(first, last):
        rng = np.random.default_rng(step)
        yield rng.standard_normal((4, 8, 8, 3)), rng.integers(0, SMALL.num_classes, 4)


def ran(trainer, first: int, last: int):
    for x, labels in batches(first, last):
        trainer.step(x, labels)
    return trainer


def same(found: TrainingState, expected: TrainingState, limit: float) -> None:
    assert (found.architecture, found.step) == (expected.architecture, expected.step)
    for own, known in ((found.weights, expected.weights), (found.slots, expected.slots)):
        assert own.keys() == known.keys()
        for name, array in known.items():
            assert own[name].dtype == array.dtype, name
            np.testing.assert_allclose(own[name], array, rtol=limit, atol=limit, err_msg=name)


def trainer_of(framework, state: TrainingState):
    return framework.train.Trainer(state, dtype="float64")


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_goes_on_from_its_files(framework, tmp_path, name):
    recipe = RECIPES[name]
    start = TrainingState(SMALL, recipe, networks.weights(SMALL))
    running = ran(trainer_of(framework, start), 0, BEFORE)
    files = framework.save_run(running, tmp_path)
    saved = framework.CONVENTION.to_canonical(running.state())
    expected = framework.CONVENTION.to_canonical(ran(running, BEFORE, STEPS).state())
    for number, (file, said) in enumerate(files.items()):
        state = read_state(file, said)
        assert state.recipe == recipe
        same(state, saved, 1e-15)
        for ending, load in framework.RUNS:
            moved = tmp_path / f"moved{number}{ending}"
            write_state(moved, state)
            load(running, moved)
            found = framework.CONVENTION.to_canonical(ran(running, BEFORE, STEPS).state())
            same(found, expected, 1e-12)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_is_named_as_its_framework_does(framework, tmp_path, name):
    architecture, recipe = networks.NETWORKS[name], RECIPES["adamw"]
    rng = np.random.default_rng(0)
    shapes = slot_shapes(architecture, recipe.slots)
    slots = {slot: rng.uniform(0.1, 1, shape) for slot, shape in shapes.items()}
    state = TrainingState(architecture, recipe, networks.weights(architecture), slots, BEFORE)
    trainer = trainer_of(framework, framework.CONVENTION.from_canonical(state))
    others = networks.weights(architecture, seed=1)
    files = framework.save_run(trainer, tmp_path)
    for number, (file, said) in enumerate(files.items()):
        same(read_state(file, said), state, 1e-15)
        for ending, load in framework.RUNS:
            moved = tmp_path / f"moved{number}{ending}"
            write_state(moved, state)
            trainer.load(TrainingState(architecture, recipe, others))
            load(trainer, moved)
            same(framework.CONVENTION.to_canonical(trainer.state()), state, 1e-15)
