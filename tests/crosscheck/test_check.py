"""The judge and the planted faults, in torch; tests/crosscheck/test_everywhere.py has the rest."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crosscheck import check as checks
from crosscheck import trained
from crosscheck.cases import SELECTION, default_cases
from crosscheck.check import LIMITS, NETWORK_LIMITS, check, plan, plan_faults, select
from crosscheck.faults import FAULTS, Fault, Target, planted
from crosscheck.faults.places import function, method, pool
from crosscheck.frameworks import FRAMEWORKS
from crosscheck.process import CrashedError
from crosscheck.report import Report

TORCH = FRAMEWORKS["torch"]


@pytest.fixture(scope="module")
def cases():
    return default_cases()


def test_every_fault_names_a_case_that_has_its_mode(cases):
    by_name = {case.name: case for case in cases}
    for fault in FAULTS.values():
        assert fault.mode == "eval" or by_name[fault.case].has_modes, fault.name


class _Block:
    def refine(self, x):
        return [x]


@pytest.mark.parametrize("where", [pool("max"), function("max"), method("CBAM", "refine")])
def test_a_fault_stands_in_one_place_and_only_while_it_is_planted(where):
    ops, forgotten = SimpleNamespace(POOLS={"max": max}, max=max), []
    step = SimpleNamespace(clear_cache=lambda: forgotten.append("step"))
    modules = (ops, SimpleNamespace(CBAM=_Block), SimpleNamespace(step=step))
    target: Any = Target(*modules, *[None] * 7)

    def answers():
        return [code([1, 2]) for code in (ops.POOLS["max"], ops.max, _Block().refine)]

    right = answers()
    fault = Fault("", "", "", where, lambda target, right, *arguments: [right(*arguments)])
    with planted(fault, target):
        faulty = answers()
    changed = [(new, old) for new, old in zip(faulty, right, strict=True) if new != old]
    assert len(changed) == 1
    assert all(new == [old] for new, old in changed)
    assert answers() == right
    assert forgotten == ["step", "step"]


def test_a_sound_implementation_is_green_and_a_faulty_one_red(cases):
    report = check([TORCH], {"torch": plan_faults(cases)})
    faulty = [row for row in report.rows if row.fault]
    assert {row.fault for row in faulty} == set(FAULTS)
    assert [row.fault for row in faulty if not row.caught] == []
    # By its numbers: a package with a fault in it still gives every array.
    assert [str(row.comparison) for row in faulty if "is missing" in row.comparison.reason] == []
    assert [str(row.comparison) for row in report.rows if not row.fault and not row.ok] == []
    assert report.ok


def test_training_is_planned_where_it_differs(cases):
    plans = plan(cases, ["float64"], ["eval", "train"])
    trained = {one.case.name for one in plans if one.mode == "train"}
    assert trained == {case.name for case in cases if case.has_modes}
    assert len(plan(cases, ["float64"], ["train"])) == len(cases)


def test_a_network_is_planned_in_the_dtypes_in_which_networks_are_judged(cases):
    plans = plan(cases, LIMITS, ["eval", "train"])
    networks = {one.dtype for one in plans if one.case.name == trained.NETWORK}
    assert networks == set(NETWORK_LIMITS)
    assert {one.dtype for one in plans if one.case.name == trained.ATTENTION} == set(LIMITS)


def test_what_is_not_full_spares_time_and_leaves_no_case_out(cases):
    plans = plan(cases, ["float64"], ["eval", "train"])
    selected = select(plans, TORCH)
    assert len(selected) < len(plans)
    assert {one.case.name for one in selected} == {case.name for case in cases}
    evaluated = plan(cases, ["float64"], ["eval"])
    assert select(evaluated, TORCH) == evaluated
    sampled = select(plans, FRAMEWORKS["torch-compile"])
    assert {one.case.name for one in sampled} == SELECTION


def test_a_crash_in_a_fault_does_not_count_as_caught():
    one = dataclasses.replace(
        plan(default_cases()[:1], ["float64"], ["eval"])[0], fault="missing-norm"
    )
    judge = checks._Judge({"0": one})
    rows = judge("torch", "0", {}, {"error": "TypeError: boom"})
    assert [(row.caught, row.ok) for row in rows] == [(False, False)]
    assert not Report("cpu", rows).ok
    assert "boom" in rows[0].comparison.reason


def test_another_dtype_fails():
    judge = checks._Judge({"0": plan(default_cases()[:1], ["float16"], ["eval"])[0]})
    (row,) = judge("torch", "0", {}, {"dtype": "float32"})
    assert not row.ok
    assert row.comparison.reason == "has dtype float32, expected float16"
    assert row.to_dict()["max_rel"] is None


def test_the_limits_are_the_promised_ones():
    assert set(LIMITS["float64"].values()) == {1e-12}
    assert (LIMITS["float32"]["output"], LIMITS["float32"]["grad"]) == (2e-6, 2e-5)
    for dtype, eps in (("bfloat16", 2**-7), ("float16", np.finfo(np.float16).eps)):
        assert LIMITS[dtype]["output"] == 4 * eps


def test_a_process_that_dies_is_an_error_and_stops_the_others(cases):
    dead = dataclasses.replace(TORCH, name="no-such-framework")
    plans = plan(cases, ["float64"] * 20, ["eval"])
    with pytest.raises(CrashedError, match="no-such-framework: its process ended early") as caught:
        check([TORCH, dead], {"torch": plans, dead.name: plans[:1]})
    assert "KeyError: 'no-such-framework'" in str(caught.value)


def test_a_process_that_leaves_passes_out_is_an_error(monkeypatch, cases, tmp_path):
    silent = tmp_path / "crosscheck"
    silent.mkdir()
    (silent / "__init__.py").write_text("")
    (silent / "worker.py").write_text("print('noise job 00000')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CrashedError, match="torch: its process ended early"):
        check([TORCH], {"torch": plan(cases[:1], ["float64"], ["eval"])})


def test_an_empty_report_is_not_green():
    assert not check([], {}).ok
