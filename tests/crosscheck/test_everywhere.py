"""The cross-check over all frameworks: equal, and every planted fault caught."""

from __future__ import annotations

import pytest

from crosscheck.cases import default_cases
from crosscheck.check import check, plan, plan_faults
from crosscheck.faults import FAULTS
from crosscheck.frameworks import FRAMEWORKS

# tests/crosscheck/test_check.py has torch itself.
OTHERS = [name for name in FRAMEWORKS if name != "torch"]


def test_the_registry_is_complete():
    assert list(FRAMEWORKS) == [
        "torch", "torch-compile", "tf", "tf-function", "keras-tensorflow", "keras-jax",
        "keras-torch", "flax", "linen",
    ]  # fmt: skip
    assert [f.name for f in FRAMEWORKS.values() if f.missing] == []


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equal(name, dtype):
    plans = plan(default_cases(), [dtype], ["eval", "train"])
    report = check([FRAMEWORKS[name]], plans, spare_slow=True)
    assert [f"{r.case} {r.mode} {r.comparison}" for r in report.rows if not r.ok] == []
    assert report.ok


@pytest.mark.parametrize("name", OTHERS)
def test_every_fault_is_caught(name):
    report = check([FRAMEWORKS[name]], plan_faults(default_cases()))
    faulty = [row for row in report.rows if row.fault]
    assert {row.fault for row in faulty} == set(FAULTS)
    assert [f"{r.fault}: {r.comparison}" for r in faulty if not r.caught] == []
    assert [str(r.comparison) for r in report.rows if not r.ok] == []
