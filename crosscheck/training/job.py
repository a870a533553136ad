"""Steps of a training run, as they lie in a file between the judge and a worker."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from cbam_core import Architecture, Recipe, TrainingState
from cbam_core.costs import is_statistic
from crosscheck.faults import Fault, Target, planted
from crosscheck.frameworks import Framework
from crosscheck.training.moving import CONVENTIONS


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
        arrays = {f"weights/{name}": array for name, array in state.weights.items()}
        arrays |= {f"slots/{name}": array for name, array in state.slots.items()}
        arrays |= {"pictures": self.pictures, "targets": self.targets}
        facts = {
            "architecture": state.architecture.to_dict(),
            "recipe": state.recipe.to_dict(),
            "step": state.step,
            "dtype": self.dtype,
            "fault": self.fault,
        }
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        metadata = {"kind": "training", "facts": json.dumps(facts)}
        safetensors.numpy.save_file(contiguous, folder / self.name, metadata)

    @classmethod
    def read(cls, path: Path) -> TrainingJob:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads(file.metadata()["facts"])

        def under(folder: str) -> dict[str, np.ndarray]:
            return {n.removeprefix(folder): a for n, a in arrays.items() if n.startswith(folder)}

        state = TrainingState(
            Architecture.from_dict(facts["architecture"]),
            Recipe.from_dict(facts["recipe"]),
            under("weights/"),
            under("slots/"),
            facts["step"],
        )
        batches = arrays["pictures"], arrays["targets"]
        return cls(path.name, state, *batches, facts["dtype"], facts["fault"])

    def run(
        self, framework: Framework, device: str, fault: Fault | None
    ) -> tuple[dict[str, np.ndarray], str]:
        """What the steps gave, under the names of `quantities`, and the dtype of the weights."""
        train = importlib.import_module(f"{framework.package}.train")
        convention = CONVENTIONS[framework.package]
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
