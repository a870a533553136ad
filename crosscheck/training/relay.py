"""One run that changes framework on its way, as somebody who moves house does."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cbam_core import TrainingState
from crosscheck.compare import Comparison, compare_pass
from crosscheck.frameworks import Framework
from crosscheck.process import CrashedError, Process
from crosscheck.training.cases import TrainingCase, TrainingPlan
from crosscheck.training.job import TrainingJob, quantities

Arrays = dict[str, np.ndarray]


def relay(
    case: TrainingCase,
    frameworks: Sequence[Framework],
    *,
    every: int,
    steps: int,
    device: str = "cpu",
    on_leg: Callable[[Framework, int], None] = lambda framework, steps: None,
) -> list[Comparison]:
    """A run of `steps` steps in float64 that changes framework after `every` of them, judged.

    Args:
        frameworks: in turn, from the first again behind the last.
        on_leg: called behind each leg with its framework and the steps that are made, for progress.

    Raises:
        RefusedError, CrashedError: as `crosscheck.check.check`.
    """
    state, losses = case.start, np.zeros(0)
    for leg, first in enumerate(range(0, steps, every)):
        framework = frameworks[leg % len(frameworks)]
        batches = case.batches(first, min(first + every, steps))
        arrays = _leg(framework, TrainingJob("leg", state, *batches, "float64"), device)
        losses = np.concatenate([losses, arrays["loss"]])
        state = _state(arrays, state, len(losses))
        on_leg(framework, state.step)
    gradients = {n.removeprefix("grad:"): a for n, a in arrays.items() if n.startswith("grad:")}
    plan = TrainingPlan(case, "float64", steps)
    return list(compare_pass(quantities(losses, gradients, state), plan.expected(), plan.limits))


def _leg(framework: Framework, job: TrainingJob, device: str) -> Arrays:
    with tempfile.TemporaryDirectory(prefix="cbam-relay-") as name:
        folder = Path(name)
        (folder / "jobs").mkdir()
        job.write(folder / "jobs")
        process = Process(framework, folder, device, [job.name])
        try:
            ((_, arrays, facts),) = process.results()
        finally:
            process.stop()
    if "error" in facts:
        raise CrashedError(f"{framework.name}: {facts['error']}")
    return arrays


def _state(arrays: Arrays, before: TrainingState, step: int) -> TrainingState:
    def under(*kinds: str) -> Arrays:
        split = ((name.partition(":"), array) for name, array in arrays.items())
        return {name: array for (kind, _, name), array in split if kind in kinds}

    weights = {name: under("weight", "state")[name] for name in before.weights}
    return dataclasses.replace(before, weights=weights, slots=under("slot"), step=step)
