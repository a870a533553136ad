"""One framework in its own process: `python -m crosscheck.worker FRAMEWORK FOLDER DEVICE`.

FOLDER/jobs holds one safetensors file for each pass, FOLDER/FRAMEWORK takes one for each result.
Standard input names the passes to run; a line "job NAME" on standard output says that a result is
there, a line "refused REASON" that this framework can't run so.
Frameworks do not share a process: they fight over threads and memory, some crash when another was
imported first, and Keras has one backend in each.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cbam_core import Architecture, CBAMSpec
from cbam_core.pullbacks import named, under
from crosscheck import exchange
from crosscheck.exporting.formats import RUNTIMES
from crosscheck.exporting.job import ExportJob
from crosscheck.faults import Fault, Target, planted
from crosscheck.frameworks import FRAMEWORKS, Framework
from crosscheck.training.faults import ALL_FAULTS
from crosscheck.training.job import TrainingJob


@dataclass(frozen=True)
class Job:
    """One pass to run, as it lies in a file.

    Attributes:
        name: of the file.
        described: the block's spec, or the network's architecture.
        dtype, training: how it runs.
        fault: the name of a fault to plant, or "".
        gates: whether to stop at the gates.
    """

    name: str
    described: CBAMSpec | Architecture
    x: np.ndarray
    cotangent: np.ndarray
    weights: dict[str, np.ndarray]
    dtype: str
    training: bool
    fault: str = ""
    gates: bool = False

    def write(self, folder: Path) -> None:
        arrays = {**named("weights", self.weights), "x": self.x, "cotangent": self.cotangent}
        facts = {
            "described": {type(self.described).__name__: self.described.to_dict()},
            "dtype": self.dtype,
            "training": self.training,
            "fault": self.fault,
            "gates": self.gates,
        }
        exchange.write(folder / self.name, arrays, facts)

    @classmethod
    def of(cls, name: str, arrays: exchange.Arrays, facts: dict[str, Any]) -> Job:
        """The job of a file with these arrays and facts."""
        ((kind, fields),) = facts["described"].items()
        described = _KINDS[kind].from_dict(fields)
        arguments = (described, arrays["x"], arrays["cotangent"], under("weights", arrays))
        return cls(name, *arguments, *(facts[n] for n in _TOLD))

    def run(
        self, framework: Framework, device: str, fault: Fault | None
    ) -> tuple[dict[str, np.ndarray], str]:
        """What `evaluate` gives: the arrays, and the dtype of the output.

        Gates are computed in at least float32 whatever the dtype, so theirs is not asked for.
        """
        target = Target.of(framework)
        if self.gates:
            arguments = (self.described, self.weights, self.x)
            options = {"dtype": self.dtype, "device": device, "compiled": framework.compiled}
            return target.evaluate.evaluate_gates(*arguments, **options), self.dtype
        is_network = isinstance(self.described, Architecture)
        evaluate = target.evaluate.evaluate_network if is_network else target.evaluate.evaluate
        with planted(fault, target):
            return evaluate(
                self.described,
                self.weights,
                self.x,
                self.cotangent,
                dtype=self.dtype,
                training=self.training,
                device=device,
                compiled=framework.compiled,
            )


_TOLD = ("dtype", "training", "fault", "gates")
_KINDS: dict[str, type[CBAMSpec | Architecture]] = {
    kind.__name__: kind for kind in (CBAMSpec, Architecture)
}


def read(path: Path) -> Job | TrainingJob | ExportJob:
    arrays, facts = exchange.read(path)
    kind = TrainingJob if "recipe" in facts else ExportJob if "export" in facts else Job
    return kind.of(path.name, arrays, facts)


def run(
    job: Job | TrainingJob | ExportJob, framework: Framework, device: str
) -> tuple[dict[str, np.ndarray], dict]:
    """The job's arrays and facts about them: the output's dtype, or the error."""
    try:
        arrays, dtype = job.run(framework, device, ALL_FAULTS.get(job.fault))
    except Exception as error:  # Whatever a framework raises is a finding.
        traceback.print_exc()
        return {}, {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
    return arrays, {"dtype": dtype}


def main(name: str, folder: Path, device: str) -> None:
    # What a library prints goes to standard error; the protocol has standard output for itself.
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    framework = {**FRAMEWORKS, **RUNTIMES}[name]
    results = folder / name
    results.mkdir()
    try:
        importlib.import_module(f"{framework.package}.evaluate").prepare(device)
    except RuntimeError as error:
        print("refused", error, file=protocol, flush=True)
        return
    for job in sys.stdin.read().split():
        arrays, facts = run(read(folder / "jobs" / job), framework, device)
        exchange.write(results / job, arrays, facts)
        print("job", job, file=protocol, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
