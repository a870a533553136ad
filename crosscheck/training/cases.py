"""The runs of `cbam check --train`: every optimizer and schedule, on real data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbam_core import Architecture, Recipe, TrainingState, initial_network
from crosscheck.frameworks import Framework
from crosscheck.trained import network
from crosscheck.training import reference
from crosscheck.training.data import Data, digits, photographs
from crosscheck.training.job import TrainingJob, quantities

STEPS = 200
TRAINING_DTYPES = ("float64", "float32")
# What differs by rounding at first differs by more after every step; Adam divides by the root of
# its second moment, which is next to nothing where a gradient is.
LIMITS = {"sgd": 1e-9, "adam": 1e-7, "adamw": 1e-7}
# In float32 a run stays within rounding of the reference until rounding decides a relu or a maximum
# otherwise; from there on a network that has learnt nothing yet goes another way. So the losses are
# judged of the first steps in which the trained network goes on.
FLOAT32_LIMITS = {"loss": 1e-4}
FLOAT32_STEPS = 50
FLOAT32_RUN = "digits-trained"
KINDS = ("loss", "grad", "weight", "state", "slot")
# Runs of a framework of which a sample is enough.
SAMPLE = ("digits-sgd", "digits-adam-cosine", FLOAT32_RUN)

# Small ResNets with CBAM, for pictures of few pixels.
_SMALL: dict[str, Any] = {
    "attention": "cbam",
    "spec": {"reduction": 4, "kernel_size": 3},
    "stem": "cifar",
}
DIGITS = Architecture("basic", (1, 1, 1), (8, 16, 32), num_classes=10, **_SMALL)
PHOTOGRAPHS = Architecture("basic", (1, 1), (8, 16), num_classes=2, **_SMALL)

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "nesterov": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "adam": {"learning_rate": 0.003, "weight_decay": 5e-4},
    "adamw": {"learning_rate": 0.003, "weight_decay": 0.05},
}


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A run from its beginning."""

    name: str
    start: TrainingState
    data: Data

    def batches(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """The pictures (steps, N, H, W, 3) and targets of the steps from `first` to `last`."""
        batches = list(self.data.batches(last, first=first))
        return np.stack([x for x, _ in batches]), np.stack([target for _, target in batches])


@dataclass(frozen=True)
class TrainingPlan:
    """A run, or its beginning, in each framework."""

    case: TrainingCase
    dtype: str
    steps: int
    fault: str = ""
    mode = "train"

    def job(self, name: str) -> TrainingJob:
        arguments = (*self.case.batches(0, self.steps), self.dtype, self.fault)
        return TrainingJob(name, self.case.start, *arguments)

    def expected(self) -> dict[str, Any]:
        """The reference's arrays, as `quantities` names them."""
        run = expected_run(self.case, self.steps)
        return quantities(run.losses, run.gradients, run.state)

    @property
    def limits(self) -> Mapping[str, float]:
        """By the kind of quantity."""
        if self.dtype == "float32":
            return FLOAT32_LIMITS
        return dict.fromkeys(KINDS, LIMITS[self.case.start.recipe.optimizer])


@functools.cache
def expected_run(case: TrainingCase, steps: int) -> reference.Run:
    """The reference's run of this many steps."""
    return reference.run(case.start, case.data.batches(steps))


def training_cases() -> list[TrainingCase]:
    """The runs: every optimizer and schedule on the digits, and a regression on photographs.

    "digits-ties" begins with maxima that tie, "digits-trained" with the trained network.
    """
    found = {"digits": (DIGITS, digits()), "photographs": (PHOTOGRAPHS, photographs())}

    def case(data: str, optimizer: str, schedule: str) -> TrainingCase:
        architecture, pictures = found[data]
        loss = "cross_entropy" if data == "digits" else "squared_error"
        kind = "sgd" if optimizer == "nesterov" else optimizer
        options = OPTIMIZERS[optimizer]
        recipe = Recipe(kind, steps=STEPS, schedule=schedule, loss=loss, **options)
        name = f"{data}-{optimizer}{'-cosine' if schedule == 'cosine' else ''}"
        start = TrainingState(architecture, recipe, initial_network(architecture, seed=1))
        return TrainingCase(name, start, pictures)

    ties = case("digits", "sgd", "constant")
    tied = dataclasses.replace(ties.start, weights=alike(ties.start.weights))
    goes_on = dataclasses.replace(ties.start.recipe, learning_rate=0.01)
    architecture, weights = network()
    on_digits = [
        case("digits", optimizer, schedule)
        for optimizer in OPTIMIZERS
        for schedule in ("constant", "cosine")
    ]
    return [
        *on_digits,
        TrainingCase("digits-ties", tied, ties.data),
        TrainingCase(FLOAT32_RUN, TrainingState(architecture, goes_on, weights), ties.data),
        case("photographs", "adamw", "cosine"),
    ]


def alike(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights with which all that an attention sees at first is 1, at all positions and channels.

    Behind a relu ties are zeros, whose gradient goes no further; these ties are none.
    """
    changed = {}
    for name, array in weights.items():
        if name.endswith("norm2.scale"):
            array = np.zeros_like(array)
        elif name.endswith(("norm2.bias", "spatial.norm.scale")):
            array = np.ones_like(array)
        elif name.endswith("channel.expand.kernel"):
            array = np.repeat(array[:, :1], array.shape[1], axis=1)
        changed[name] = array
    return changed


def plan_training(
    cases: Sequence[TrainingCase], dtypes: Sequence[str], steps: int
) -> list[TrainingPlan]:
    """Every case in float64, and the first steps of one in float32, as far as `dtypes` says."""
    wide = [TrainingPlan(case, "float64", steps) for case in cases]
    few = min(steps, FLOAT32_STEPS)
    narrow = [TrainingPlan(case, "float32", few) for case in cases if case.name == FLOAT32_RUN]
    return [one for one in (*wide, *narrow) if one.dtype in dtypes]


def select_training(plans: Sequence[TrainingPlan], framework: Framework) -> Sequence[TrainingPlan]:
    """What a check that is not full asks of `framework`."""
    return [one for one in plans if not framework.sample or one.case.name in SAMPLE]
