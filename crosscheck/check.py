"""The cross-check: the same passes through every framework, judged by the NumPy reference."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors

from cbam_core import reference
from crosscheck.cases import SELECTION, Case
from crosscheck.compare import Comparison, compare_pass
from crosscheck.faults import FAULTS, Fault
from crosscheck.frameworks import Framework
from crosscheck.worker import Job

# What may differ, relative to the largest value of the reference. float64 is the judge of meaning.
# In float32 gradients and statistics are sums over all positions, whose terms cancel in part; four
# units of eps is what a half precision may lose, with gates computed in float32.
LIMITS = {
    "float64": {"output": 1e-12, "grad": 1e-12, "state": 1e-12},
    "float32": {"output": 2e-6, "grad": 2e-5, "state": 2e-5},
    "bfloat16": {"output": 4 * 2.0**-7, "grad": 4 * 2.0**-7, "state": 4 * 2.0**-7},
    "float16": {"output": 4 * 2.0**-10, "grad": 4 * 2.0**-10, "state": 4 * 2.0**-10},
}

DISTRIBUTIONS = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "keras": ("keras",),
    "jax": ("jax",),
    "flax": ("flax",),
}


class RefusedError(RuntimeError):
    """A framework can't run as it was asked to: no such device, or a worker that died."""


@dataclass(frozen=True)
class Row:
    """One quantity of one pass in one framework."""

    framework: str
    case: str
    dtype: str
    mode: str
    comparison: Comparison
    fault: str = ""
    crashed: bool = False

    @property
    def caught(self) -> bool:
        """Whether the comparison found the planted fault; a crash is no verdict of it."""
        return not self.comparison.ok and not self.crashed

    @property
    def ok(self) -> bool:
        """Whether all is as it should be: equal, or, with a fault planted, caught."""
        return self.caught if self.fault else self.comparison.ok

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON; what could not be compared has null for its differences."""
        comparison = self.comparison
        row = {
            "framework": self.framework,
            "case": self.case,
            "dtype": self.dtype,
            "mode": self.mode,
            "quantity": comparison.quantity,
            "max_abs": _finite(comparison.max_abs),
            "max_rel": _finite(comparison.max_rel),
            "limit": comparison.limit,
            "ok": comparison.ok,
        }
        if comparison.reason:
            row["reason"] = comparison.reason
        if self.fault:
            row |= {"fault": self.fault, "caught": self.caught}
        return row


@dataclass
class Report:
    """All rows, and what they were made with."""

    device: str
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every quantity is equal, or, where a fault was planted, every fault caught."""
        return bool(self.rows) and all(row.comparison.ok != bool(row.fault) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "reference": "numpy-float64",
            "versions": versions(),
            "device": self.device,
            "tf32": False,
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "rows": [row.to_dict() for row in self.rows],
        }


@dataclass(frozen=True)
class Plan:
    """One pass to run in each framework, rounded to its dtype."""

    case: Case
    dtype: str
    mode: str
    fault: str = ""

    def job(self, name: str) -> Job:
        case = self.case
        arguments = (case.spec, case.x, case.cotangent, case.weights, self.dtype)
        return Job(name, *arguments, self.mode == "train", self.fault)

    def expected(self) -> dict[str, Any]:
        """The reference's arrays, under the names that `evaluate` uses."""
        case = self.case
        step = reference.run(case.spec, case.weights, case.x, training=self.mode == "train")
        dx, gradients = step.pullback(case.cotangent)
        arrays = {"output": step.output, "grad:input": dx}
        arrays |= {f"grad:{name}": array for name, array in gradients.items()}
        return arrays | {f"state:{name}": array for name, array in step.statistics.items()}


def plan(cases: Iterable[Case], dtypes: Sequence[str], modes: Sequence[str]) -> list[Plan]:
    """Every case in every dtype and mode; training only where it differs from evaluation."""
    return [
        Plan(rounded, dtype, mode)
        for dtype in dtypes
        for case in cases
        for rounded in [case.rounded(dtype)]
        for mode in modes
        if mode == "eval" or case.has_modes or "eval" not in modes
    ]


def plan_faults(cases: Iterable[Case]) -> list[Plan]:
    """Each fault where it shows, behind the same passes without a fault, which have to be green."""
    by_name = {case.name: case for case in cases}

    def planned(fault: Fault, name: str) -> Plan:
        return Plan(by_name[fault.case].rounded(fault.dtype), fault.dtype, fault.mode, name)

    sound = {(fault.case, fault.dtype, fault.mode): planned(fault, "") for fault in FAULTS.values()}
    return [*sound.values(), *(planned(fault, fault.name) for fault in FAULTS.values())]


def check(
    frameworks: Sequence[Framework],
    plans: Sequence[Plan],
    *,
    device: str = "cpu",
    processes: int | None = None,
    spare_slow: bool = False,
    on_result: Callable[[str], None] = lambda framework: None,
) -> Report:
    """Run `plans` in every framework, each in a process of its own, and judge the results.

    Args:
        processes: how many frameworks run at a time; as many as there are cores if None.
        spare_slow: whether a framework that takes seconds for a pass runs a selection of them.
        on_result: called with a framework's name for each of its results, for progress.

    Raises:
        RefusedError: a framework does not run here as asked; all others have been stopped.
    """
    report = Report(device)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cbam-check-")))
        (folder / "jobs").mkdir()
        names = [f"{number:05}" for number in range(len(plans))]
        for name, one in zip(names, plans, strict=True):
            one.job(name).write(folder / "jobs")
        judge = _Judge(dict(zip(names, plans, strict=True)))
        processes = processes or os.cpu_count() or 1
        selected = [name for name, one in judge.plans.items() if one.case.name in SELECTION]
        workers = [
            _Worker(f, folder, device, selected if spare_slow and f.slow else names)
            for f in frameworks
        ]
        pool = stack.enter_context(ThreadPoolExecutor(processes))
        # Leaving the stack, on an error too, stops the workers before it waits for the pool.
        for worker in workers:
            stack.callback(worker.stop)

        def judged(worker: _Worker) -> list[Row]:
            rows = []
            for name, arrays, facts in worker.results():
                rows += judge(worker.framework.name, name, arrays, facts)
                on_result(worker.framework.name)
            return rows

        for rows in pool.map(judged, workers):
            report.rows += rows
    report.seconds = time.monotonic() - started
    return report


class _Judge:
    """Rows from results; each reference is computed once, for all frameworks."""

    def __init__(self, plans: dict[str, Plan]) -> None:
        self.plans = plans
        self.expected: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()

    def __call__(self, framework: str, name: str, arrays: dict, facts: dict) -> list[Row]:
        one = self.plans[name]
        with self.lock:
            if name not in self.expected:
                self.expected[name] = one.expected()
        limits = LIMITS[one.dtype]
        if facts.get("dtype") != one.dtype:
            reason = facts.get("error") or f"has dtype {facts['dtype']}, expected {one.dtype}"
            comparisons = [Comparison("output", math.inf, math.inf, limits["output"], reason)]
        else:
            comparisons = list(compare_pass(arrays, self.expected[name], limits))
        if one.fault:
            # One row for a fault: where it shows most.
            comparisons = [max(comparisons, key=lambda c: (not c.ok, c.max_rel / c.limit))]
        place = (framework, one.case.name, one.dtype, one.mode)
        return [Row(*place, c, one.fault, "error" in facts) for c in comparisons]


class _Worker:
    """The process of one framework, started when its results are asked for."""

    def __init__(
        self, framework: Framework, folder: Path, device: str, jobs: Sequence[str]
    ) -> None:
        self.framework, self.folder, self.device, self.jobs = framework, folder, device, jobs
        self.process: subprocess.Popen[str] | None = None
        self.stopped = False

    def results(self) -> Iterator[tuple[str, dict, dict]]:
        """(job, arrays, facts) of each pass, as they come."""
        if self.stopped:
            return
        name = self.framework.name
        jobs, log = self.folder / f"{name}.jobs", self.folder / f"{name}.log"
        jobs.write_text("".join(f"{job}\n" for job in self.jobs))
        with jobs.open() as listed, log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crosscheck.worker", name, self.folder, self.device],
                stdin=listed,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment(),
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "refused":
                raise RefusedError(f"{name}: {rest}")
            if word == "job":
                yield (rest, *self._read(rest))
        if self.process.wait() and not self.stopped:
            raise RefusedError(f"{name}: its process ended early\n{_tail(log)}")

    def _environment(self) -> dict[str, str]:
        # The maps are small, and several processes run side by side: one thread for each is best.
        threads = {
            "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        hidden = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
        hidden = hidden if self.device == "cpu" else {}
        return os.environ | threads | hidden | dict(self.framework.environment)

    def _read(self, job: str) -> tuple[dict, dict]:
        path = self.folder / self.framework.name / job
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads(file.metadata()["facts"])
        path.unlink()
        return arrays, facts

    def stop(self) -> None:
        self.stopped = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()


def versions() -> dict[str, str]:
    """Versions of Python and of all that is installed of the frameworks."""
    found = {"python": platform.python_version()}
    for name, distributions in {
        "cbam": ("cbam",),
        "numpy": ("numpy",),
        **DISTRIBUTIONS,
    }.items():
        for distribution in distributions:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(distribution)
    return found


def write_json(report: Report, path: Path) -> None:
    """Write the report, whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")
    shutil.move(beside, path)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
