"""`cbam check --train`: its data, its judge, its plans and its relay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cbam_core import Recipe, TrainingState, initial_network, reference_network
from crosscheck import worker
from crosscheck.check import check
from crosscheck.faults import FAULTS
from crosscheck.frameworks import FRAMEWORKS
from crosscheck.training import port, reference
from crosscheck.training.cases import (
    DIGITS,
    FLOAT32_RUN,
    TrainingPlan,
    expected_run,
    plan_training,
    select_training,
    training_cases,
)
from crosscheck.training.data import Data, digits, moved, photographs
from crosscheck.training.faults import TRAINING_FAULTS
from crosscheck.training.job import TrainingJob
from crosscheck.training.relay import relay

CASES = {case.name: case for case in training_cases()}


def test_the_data_are_real_and_the_same_every_time():
    assert digits().pictures.shape == (1797, 8, 8, 3)
    assert np.bincount(digits().targets).tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]
    pictures = photographs()
    assert np.array_equal(pictures.pictures, photographs().pictures)
    assert np.abs(pictures.targets).max() <= 1
    first, again = (list(digits().batches(58)) for _ in range(2))
    assert all(
        np.array_equal(x, y)
        for a, b in zip(first, again, strict=True)
        for x, y in zip(a, b, strict=True)
    )
    later = list(digits().batches(58, first=56))
    assert np.array_equal(later[1][0], first[57][0])


def test_an_epoch_has_every_picture_at_most_once():
    data = Data(np.arange(100.0).reshape(100, 1, 1, 1), np.arange(100))
    epochs = [np.concatenate([y for _, y in data.batches(3 * n, first=3 * n - 3)]) for n in (1, 2)]
    assert all(len(np.unique(epoch)) == 96 for epoch in epochs)
    assert not np.array_equal(*epochs)


def test_a_picture_is_moved_as_a_whole():
    picture = np.arange(12.0).reshape(1, 3, 4, 1)
    down_left = moved(picture, np.array([[1, -1]]))
    assert np.array_equal(down_left[0, 1:, :3], picture[0, :2, 1:])


def test_the_reference_s_gradients_are_those_of_its_loss():
    """Of one step, by central differences."""
    case = CASES["photographs-adamw-cosine"]
    x, target = next(case.data.batches(1, 4))
    weights = {n: w.astype(np.float64) for n, w in case.start.weights.items()}
    found = reference.run(dataclasses.replace(case.start, weights=weights), [(x, target)])

    def loss(shift):
        changed = {**weights, "head.linear.kernel": weights["head.linear.kernel"] + shift}
        output = reference_network.run(case.start.architecture, changed, x, training=True).output
        return reference.squared_error(output, target)[0]

    direction = np.random.default_rng(0).standard_normal(weights["head.linear.kernel"].shape)
    slope = (loss(1e-6 * direction) - loss(-1e-6 * direction)) / 2e-6
    assert np.isclose((found.gradients["head.linear.kernel"] * direction).sum(), slope, rtol=1e-7)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        # By hand, for the gradients 1 and then 2 of a parameter that is 1 at first.
        (Recipe("sgd", 0.1, 2, momentum=0.5, weight_decay=0.5), [0.85, 0.5325]),
        (Recipe("sgd", 0.1, 2, momentum=0.5, nesterov=True), [0.85, 0.525]),
        (Recipe("adam", 0.1, 2, betas=(0.0, 0.0), epsilon=1.0), [0.95, 0.95 - 0.1 * 2 / 3]),
        (Recipe("adamw", 0.1, 2, "cosine", weight_decay=0.5, betas=(0.0, 0.0)), [0.85, 0.77875]),
    ],
)
def test_the_optimizers_are_their_equations(recipe, expected):
    weights, slots = {"a.kernel": np.array(1.0)}, {}
    for number, value in enumerate(expected):
        gradients = {"a.kernel": np.array(number + 1.0)}
        weights, slots = reference.advance(recipe, number, weights, gradients, slots)
        assert np.isclose(weights["a.kernel"], value, rtol=1e-7)


def test_a_job_comes_back_from_its_file(tmp_path):
    case = CASES["digits-nesterov-cosine"]
    after = expected_run(case, 2).state
    job = TrainingJob("job", after, *case.batches(2, 4), "float64", "epsilon-hat")
    job.write(tmp_path)
    read = worker.read(tmp_path / "job")
    assert (read.state.recipe, read.state.architecture) == (after.recipe, after.architecture)
    assert (read.state.step, read.dtype, read.fault) == (2, "float64", "epsilon-hat")
    assert all(np.array_equal(read.state.slots[n], slot) for n, slot in after.slots.items())
    assert np.array_equal(read.pictures, job.pictures)


def test_every_optimizer_and_schedule_is_planned():
    plans = plan_training(list(CASES.values()), ["float64", "float32"], 200)
    assert [p.case.name for p in plans if p.dtype == "float32"] == [FLOAT32_RUN]
    assert len(plans) == len(CASES) + 1
    recipes = {
        (c.start.recipe.optimizer, c.start.recipe.nesterov, c.start.recipe.schedule)
        for c in CASES.values()
    }
    assert len(recipes) == 8
    sample = select_training(plans, FRAMEWORKS["linen"])
    assert {p.case.start.recipe.optimizer for p in sample} == {"sgd", "adam"}


def test_the_names_of_all_faults_differ():
    assert not FAULTS.keys() & TRAINING_FAULTS.keys()


def test_a_run_that_differs_is_not_green():
    """The judge, on a run with another rate."""
    case = CASES["digits-sgd"]
    recipe = dataclasses.replace(case.start.recipe, learning_rate=0.1001)
    other = dataclasses.replace(case, start=dataclasses.replace(case.start, recipe=recipe))

    class Misplanned(TrainingPlan):
        def job(self, name):
            return TrainingPlan(other, self.dtype, self.steps).job(name)

    report = check([FRAMEWORKS["torch"]], {"torch": [Misplanned(case, "float64", 2)]})
    wrong = {row.comparison.quantity.partition(":")[0] for row in report.rows if not row.ok}
    assert wrong >= {"weight", "grad"}
    assert not report.ok


def test_a_relay_ends_where_one_framework_would():
    frameworks = [FRAMEWORKS[name] for name in ("torch", "flax", "keras-tensorflow")]
    legs = []
    judged = relay(
        CASES["digits-nesterov-cosine"],
        frameworks,
        every=2,
        steps=5,
        on_leg=lambda framework, steps: legs.append((framework.name, steps)),
    )
    assert legs == [("torch", 2), ("flax", 4), ("keras-tensorflow", 5)]
    assert [str(one) for one in judged if not one.ok] == []


def test_port_names_a_framework_that_it_does_not_know():
    state = TrainingState(DIGITS, Recipe("sgd", 0.1, 2), initial_network(DIGITS))
    with pytest.raises(ValueError, match="dst='mxnet' is unknown; choose from torch, torch-comp"):
        port(state, "torch", "mxnet")
