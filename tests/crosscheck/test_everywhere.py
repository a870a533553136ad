"""The cross-check over all frameworks: equal, also while it trains, and every fault caught."""

from __future__ import annotations

import pytest

from cbam_core import Architecture
from crosscheck.cases import MODES, SELECTION, default_cases
from crosscheck.check import check, plan, plan_faults, plan_gates, select, select_networks
from crosscheck.faults import FAULTS
from crosscheck.frameworks import FRAMEWORKS
from crosscheck.networks import network_case
from crosscheck.process import RefusedError
from crosscheck.training.cases import (
    FLOAT32_RUN,
    FLOAT32_STEPS,
    STEPS,
    TrainingPlan,
    training_cases,
)
from crosscheck.training.faults import TRAINING_FAULTS, plan_training_faults
from tests.compiling import QUICKLY

NAMES = [
    pytest.param(name, marks=pytest.mark.compiler) if framework.needs_compiler else name
    for name, framework in FRAMEWORKS.items()
]
# tests/crosscheck/test_check.py has torch itself.
OTHERS = NAMES[1:]


def test_the_registry_is_complete():
    assert list(FRAMEWORKS) == [
        "torch", "torch-compile", "tf", "tf-function", "keras-tensorflow", "keras-jax",
        "keras-torch", "flax", "linen",
    ]  # fmt: skip
    assert [f.missing for f in FRAMEWORKS.values() if not f.needs_compiler] == [[]] * 8


@pytest.mark.parametrize("name", NAMES)
def test_equal(name, monkeypatch):
    """What `cbam check --report` runs, and lesser precision; each choice is in tests/frameworks."""
    # Compiled as users do, since rounding is what such compilers change.
    for variable in QUICKLY:
        monkeypatch.delenv(variable)
    framework, cases = FRAMEWORKS[name], default_cases()
    selected = [case for case in cases if case.name in SELECTION]
    lesser = ["float32", "bfloat16", "float16"]
    plans = plan(cases, ["float64"], MODES) + plan(selected, lesser, MODES)
    gates = plan_gates(cases, ["float64"])
    report = check([framework], {name: [*select(plans, framework), *gates]})
    assert [f"{r.case} {r.dtype} {r.mode} {r.comparison}" for r in report.rows if not r.ok] == []
    assert {row.dtype for row in report.rows} == {"float64", *lesser}
    (maps,) = report.maps
    assert set(maps.gates) == {"gate:channel", "gate:spatial"}


@pytest.mark.parametrize("name", NAMES)
def test_equal_on_a_network(name):
    """Few layers: tests/frameworks/test_backbones.py has every choice, `--model` the real ones."""
    fields = {"groups": 2, "group_width": 32, "num_classes": 5}
    small = Architecture("bottleneck", (1, 1), (8, 12), attention="cbam", **fields)
    framework = FRAMEWORKS[name]
    plans = plan([network_case("small", small, size=64)], ["float64", "float32"], MODES)
    report = check([framework], {name: select_networks(plans, framework)})
    assert [f"{r.dtype} {r.mode} {r.comparison}" for r in report.rows if not r.ok] == []
    assert report.ok


@pytest.mark.parametrize("name", OTHERS)
def test_every_fault_is_caught(name):
    report = check([FRAMEWORKS[name]], {name: plan_faults(default_cases())})
    faulty = [row for row in report.rows if row.fault]
    assert {row.fault for row in faulty} == set(FAULTS)
    assert [f"{r.fault}: {r.comparison}" for r in faulty if not r.caught] == []
    assert [str(r.comparison) for r in report.rows if not r.ok] == []
    assert report.ok


@pytest.mark.parametrize("name", ["tf", "keras-jax", "keras-tensorflow", "flax", "linen"])
def test_without_a_gpu_a_framework_is_refused(name):
    plans = plan(default_cases()[:1], ["float32"], ["eval"])
    with pytest.raises(RefusedError, match=f"{name}: .* sees no GPU here; run with --device cpu"):
        check([FRAMEWORKS[name]], {name: plans}, device="gpu")


RUNS = {case.name: case for case in training_cases()}


@pytest.mark.parametrize("name", NAMES)
def test_equal_while_it_trains(name):
    """200 steps in float64, 50 in float32; every optimizer is in tests/frameworks."""
    plans = [
        TrainingPlan(RUNS["digits-sgd"], "float64", STEPS),
        TrainingPlan(RUNS[FLOAT32_RUN], "float32", FLOAT32_STEPS),
    ]
    report = check([FRAMEWORKS[name]], {name: plans})
    assert [f"{r.dtype} {r.comparison}" for r in report.rows if not r.ok] == []
    assert {row.dtype for row in report.rows} == {"float64", "float32"}


@pytest.mark.parametrize("name", NAMES)
def test_every_fault_of_training_is_caught(name):
    framework = FRAMEWORKS[name]
    faults = list(TRAINING_FAULTS.values())
    if framework.sample:
        # Of the optimizer's faults the code that judges them is the same, and a run compiles long.
        faults = [fault for fault in faults if fault.traced]
    report = check([framework], {name: plan_training_faults(RUNS.values(), faults)})
    faulty = [row for row in report.rows if row.fault]
    assert {row.fault for row in faulty} == {fault.name for fault in faults}
    assert [f"{r.fault}: {r.comparison}" for r in faulty if not r.caught] == []
    assert [str(r.comparison) for r in report.rows if not r.ok] == []
