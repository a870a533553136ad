"""The cross-check: the same passes through every framework, judged by the NumPy reference."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbam_core import PRESETS, Architecture
from crosscheck import trained
from crosscheck.case import Case
from crosscheck.cases import PHOTOGRAPH, SELECTION
from crosscheck.compare import Comparison, compare_pass
from crosscheck.exporting.check import ExportPlan
from crosscheck.faults import FAULTS, Fault
from crosscheck.frameworks import Framework
from crosscheck.maps import Maps
from crosscheck.process import Process
from crosscheck.report import Report, Row
from crosscheck.training.cases import TrainingPlan
from crosscheck.worker import Job

# What may differ, relative to the largest value of the reference. float64 is the judge of meaning.
# In float32 gradients and statistics are sums over all positions, whose terms cancel in part; four
# units of eps is what a half precision may lose, with gates computed in float32.
LIMITS = {
    "float64": {"output": 1e-12, "gate": 1e-12, "grad": 1e-12, "state": 1e-12},
    "float32": {"output": 2e-6, "gate": 2e-6, "grad": 2e-5, "state": 2e-5},
    "bfloat16": dict.fromkeys(("output", "gate", "grad", "state"), 4 * 2.0**-7),
    "float16": dict.fromkeys(("output", "gate", "grad", "state"), 4 * 2.0**-10),
}

# Of whole networks. Rounding grows a hundredfold on its way through their layers and back, and a
# gradient by one of an attention's few numbers is a sum over all positions, whose terms may cancel
# down to a thousandth. In float32 rounding decides some of the millions of relus and maxima of a
# network otherwise, which makes gradients jump: they are judged in float64 alone.
NETWORK_LIMITS = {
    "float64": {"output": 1e-12, "grad": 1e-10, "state": 1e-12},
    "float32": {"output": 2e-5, "state": 2e-5},
}


@dataclass(frozen=True)
class Plan:
    """One pass to run in each framework, rounded to its dtype.

    Attributes:
        gates: whether it stops at the gates, and nothing else of it is judged.
    """

    case: Case
    dtype: str
    mode: str
    fault: str = ""
    gates: bool = False

    def job(self, name: str) -> Job:
        case = self.case
        arguments = (case.described, case.x, case.cotangent, case.weights, self.dtype)
        return Job(name, *arguments, self.mode == "train", self.fault, self.gates)

    def expected(self) -> dict[str, Any]:
        """The reference's arrays, under the names that `evaluate` and `evaluate_gates` use."""
        if self.gates:
            return self.case.expected_gates()
        return self.case.expected(self.mode == "train")

    @property
    def limits(self) -> Mapping[str, float]:
        """By the kind of quantity."""
        limits = limits_of(self.case)[self.dtype]
        return {"gate": limits["gate"]} if self.gates else limits


def limits_of(case: Case) -> Mapping[str, Mapping[str, float]]:
    """By the dtypes in which it is judged."""
    return NETWORK_LIMITS if isinstance(case.described, Architecture) else LIMITS


def plan(cases: Iterable[Case], dtypes: Sequence[str], modes: Sequence[str]) -> list[Plan]:
    """Every case in every dtype and mode; training only where it differs from evaluation.

    A network is left out where the dtype is none in which networks are judged.
    """
    return [
        Plan(rounded, dtype, mode)
        for dtype in dtypes
        for case in cases
        if dtype in limits_of(case)
        for rounded in [case.rounded(dtype)]
        for mode in modes
        if mode == "eval" or case.has_modes or "eval" not in modes
    ]


def select(plans: Sequence[Plan], framework: Framework) -> Sequence[Plan]:
    """Of `plans` what a check that is not full asks of `framework`.

    A framework of which a sample is enough runs a few cases. Where both modes are planned, all but
    the presets and the trained network run in training alone: there is more that can go wrong.
    """
    if framework.sample:
        plans = [one for one in plans if one.case.name in SELECTION]
    trained = {(one.case.name, one.dtype) for one in plans if one.mode == "train"}
    return [
        one
        for one in plans
        if one.mode == "train"
        or one.case.name in _IN_BOTH_MODES
        or (one.case.name, one.dtype) not in trained
    ]


def select_networks(plans: Sequence[Plan], framework: Framework) -> Sequence[Plan]:
    """Of passes of networks what a check that is not full asks of `framework`.

    A framework of which a sample is enough runs training alone, where that is planned.
    """
    trained = [one for one in plans if one.mode == "train"]
    return trained if framework.sample and trained else plans


_IN_BOTH_MODES = frozenset([*(f"{name}-relu" for name in PRESETS), trained.NETWORK])


def plan_gates(cases: Iterable[Case], dtypes: Sequence[str]) -> list[Plan]:
    """The gates of the block on the photograph, in evaluation."""
    return [
        Plan(case.rounded(dtype), dtype, "eval", gates=True)
        for case in cases
        if case.name == PHOTOGRAPH
        for dtype in dtypes
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
    plans_of: Mapping[str, Sequence[Plan | TrainingPlan | ExportPlan]],
    *,
    device: str = "cpu",
    processes: int | None = None,
    on_result: Callable[[str], None] = lambda framework: None,
) -> Report:
    """Run each framework's plans, each framework in a process of its own, and judge the results.

    Args:
        plans_of: the name of a framework -> the passes that it runs.
        processes: how many frameworks run at a time; as many as there are cores if None.
        on_result: called with a framework's name for each of its results, for progress.

    Raises:
        RefusedError: a framework sees no such device; all others have been stopped.
        CrashedError: a process ended early; likewise.
    """
    report = Report(device)
    started = time.monotonic()
    distinct = {id(one): one for f in frameworks for one in plans_of[f.name]}
    names = {key: f"{number:05}" for number, key in enumerate(distinct)}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cbam-check-")))
        (folder / "jobs").mkdir()
        for key, one in distinct.items():
            one.job(names[key]).write(folder / "jobs")
        judge = _Judge({names[key]: one for key, one in distinct.items()})
        running = [
            Process(f, folder, device, [names[id(one)] for one in plans_of[f.name]])
            for f in frameworks
        ]
        pool = stack.enter_context(ThreadPoolExecutor(processes or os.cpu_count() or 1))
        # Leaving the stack, on an error too, stops the processes before it waits for the pool.
        for process in running:
            stack.callback(process.stop)

        def judged(process: Process) -> list[Row]:
            rows = []
            for name, arrays, facts in process.results():
                rows += judge(process.framework.name, name, arrays, facts)
                on_result(process.framework.name)
            return rows

        futures = [pool.submit(judged, process) for process in running]
        for future in as_completed(futures):
            future.result()
        report.rows = [row for future in futures for row in future.result()]
        order = [framework.name for framework in frameworks]
        report.maps = sorted(judge.maps, key=lambda maps: order.index(maps.framework))
    report.seconds = time.monotonic() - started
    return report


class _Judge:
    """Rows from results; each reference is computed once, for all frameworks.

    Attributes:
        maps: the gates of the passes that stop there, where they have the reference's shapes.
    """

    def __init__(self, plans: dict[str, Plan | TrainingPlan | ExportPlan]) -> None:
        self.plans = plans
        self.expected: dict[str, dict[str, Any]] = {}
        self.maps: list[Maps] = []
        self.lock = threading.Lock()

    def __call__(self, framework: str, name: str, arrays: dict, facts: dict) -> list[Row]:
        one = self.plans[name]
        with self.lock:
            if name not in self.expected:
                self.expected[name] = one.expected()
        limits = one.limits
        if facts.get("dtype") != one.dtype:
            reason = facts.get("error") or f"has dtype {facts['dtype']}, expected {one.dtype}"
            first, limit = next(iter(limits.items()))
            comparisons = [Comparison(first, math.inf, math.inf, limit, reason)]
        else:
            comparisons = list(compare_pass(arrays, self.expected[name], limits))
        if isinstance(one, Plan) and one.gates:
            self._keep(Maps(framework, one.case.name, one.dtype, arrays, self.expected[name]))
        if one.fault:
            # One row for a fault: where it shows most.
            comparisons = [max(comparisons, key=lambda c: (not c.ok, c.max_rel / c.limit))]
        place = (framework, one.case.name, one.dtype, one.mode)
        return [Row(*place, c, one.fault, "error" in facts) for c in comparisons]

    def _keep(self, maps: Maps) -> None:
        if {n: a.shape for n, a in maps.gates.items()} == {
            n: a.shape for n, a in maps.expected.items()
        }:
            self.maps.append(maps)
