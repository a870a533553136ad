"""Steps of a training run, as they lie in a file between the judge and a worker."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cbam_core import Architecture, Recipe, TrainingState
from cbam_core.costs import is_statistic
from cbam_core.pullbacks import named, under
from crosscheck import exchange
from crosscheck.faults import Fault, Target, planted
from crosscheck.frameworks import Framework


@dataclass(frozen=True)
class TrainingJob:
    """A state, and one batch for each step to make from there.

    Attributes:
        name: of the file.
        state: with slots as `cbam_core.recipe` has them.
        pictures: (steps, N, H, W, 3).
        targets: (steps, N) or (steps, N, K).
        dtype: how it runs.
        fault: the name of a fault to plant, or "".
    """

    name: str
    state: TrainingState
    pictures: np.ndarray
    targets: np.ndarray
    dtype: str
    fault: str = ""

    def write(self, folder: Path) -> None:
        state = self.state
        arrays = {**named("weights", state.weights), **named("slots", state.slots)}
        arrays |= {"pictures": self.pictures, "targets": self.targets}
        facts = {
            "architecture": state.architecture.to_dict(),
            "recipe": state.recipe.to_dict(),
            "step": state.step,
            "dtype": self.dtype,
            "fault": self.fault,
        }
        exchange.write(folder / self.name, arrays, facts)

    @classmethod
    def of(cls, name: str, arrays: exchange.Arrays, facts: dict[str, Any]) -> TrainingJob:
        """The job of a file with these arrays and facts."""
        state = TrainingState(
            Architecture.from_dict(facts["architecture"]),
            Recipe.from_dict(facts["recipe"]),
            under("weights", arrays),
            under("slots", arrays),
            facts["step"],
        )
        batches = arrays["pictures"], arrays["targets"]
        return cls(name, state, *batches, facts["dtype"], facts["fault"])

    def run(
        self, framework: Framework, device: str, fault: Fault | None
    ) -> tuple[dict[str, np.ndarray], str]:
        """What the steps gave, under the names of `quantities`, and the dtype of the weights."""
        train = importlib.import_module(f"{framework.package}.train")
        convention = framework.library.convention
        options = {"dtype": self.dtype, "device": device, "compiled": framework.compiled}
        with planted(fault, Target.of(framework)):
            trainer = train.Trainer(convention.from_canonical(self.state), **options)
            steps = zip(self.pictures, self.targets, strict=True)
            losses = np.array([trainer.step(x, target) for x, target in steps])
            state = convention.to_canonical(trainer.state())
            arrays = quantities(losses, trainer.gradients(), state)
        dtypes = {str(array.dtype) for array in state.weights.values()}
        return arrays, ", ".join(sorted(dtypes))


def quantities(
    losses: np.ndarray, gradients: dict[str, np.ndarray], state: TrainingState
) -> dict[str, np.ndarray]:
    """What is judged of a run.

    "loss" of every step; of the last one "grad:NAME", and behind it "weight:NAME" of each
    parameter, "state:NAME" of each statistic and "slot:KIND:NAME".
    """
    arrays = {"loss": losses}
    arrays |= {f"grad:{name}": gradient for name, gradient in gradients.items()}
    for name, array in state.weights.items():
        arrays[f"{'state' if is_statistic(name) else 'weight'}:{name}"] = array
    return arrays | {f"slot:{name}": slot for name, slot in state.slots.items()}
