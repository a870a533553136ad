"""The one comparison: what it accepts, and above all what it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crosscheck.compare import compare, compare_pass

LIMITS = {"output": 1e-12, "grad": 1e-12, "state": 1e-12}


def test_a_difference_is_relative_to_the_largest_value():
    found = compare("output", np.array([10.0, 1e-9]), np.array([10.0, 0.0]), 1e-9)
    assert (found.max_abs, found.max_rel, found.ok) == (1e-9, 1e-10, True)
    assert not compare("output", np.array([10.1, 0.0]), np.array([10.0, 0.0]), 1e-3).ok


@given(arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)))
def test_an_array_equals_itself(array):
    assert compare("output", array, array.copy(), 0.0).ok


@pytest.mark.parametrize(
    ("actual", "expected", "ok"),
    [
        ([np.nan, 1.0], [np.nan, 1.0], True),
        ([np.nan, 1.0], [0.0, 1.0], False),
        ([0.0, 1.0], [np.nan, 1.0], False),
        ([np.nan, 1.0], [1.0, np.nan], False),
        ([np.inf, 1.0], [np.inf, 1.0], True),
        ([-np.inf, 1.0], [np.inf, 1.0], False),
        ([np.inf, 1.0], [np.nan, 1.0], False),
        ([np.nan, 2.0], [np.nan, 1.0], False),
        ([1e-300, 0.0], [0.0, 0.0], False),
    ],
)
def test_nan_and_infinity_have_to_be_where_the_reference_has_them(actual, expected, ok):
    assert compare("output", np.array(actual), np.array(expected), 1e-12).ok is ok


def test_another_shape_is_no_broadcast():
    found = compare("output", np.ones((2, 1)), np.ones((2, 3)), 1.0)
    assert not found.ok
    assert found.reason == "has shape (2, 1), expected (2, 3)"


def test_missing_and_unexpected_quantities_fail():
    x = np.ones(2)
    judged = {
        c.quantity: c
        for c in compare_pass({"output": x, "grad:b": x}, {"output": x, "grad:a": x}, LIMITS)
    }
    assert judged["output"].ok
    assert (judged["grad:a"].ok, judged["grad:a"].reason) == (False, "is missing")
    assert (judged["grad:b"].ok, judged["grad:b"].reason) == (False, "is unexpected")


def test_a_kind_without_a_limit_is_not_judged():
    x = np.ones(2)
    actual, expected = {"output": x, "grad:a": 2 * x}, {"output": x, "grad:a": x, "grad:b": x}
    found = compare_pass(actual, expected, {"output": 1e-12})
    assert [c.quantity for c in found] == ["output"]


def test_a_gradient_of_rounding_is_judged_by_the_largest_gradient():
    """A bias before a batch norm has the gradient 0, and every implementation its own rounding."""
    expected = {"grad:input": np.array([1.0]), "grad:bias": np.array([3e-17])}
    actual = {"grad:input": np.array([1.0]), "grad:bias": np.array([-5e-16])}
    assert all(c.ok for c in compare_pass(actual, expected, LIMITS))
    actual["grad:bias"] = np.array([1e-9])
    assert [c.ok for c in compare_pass(actual, expected, LIMITS)] == [True, False]
    # A small gradient that is no rounding keeps its own scale.
    expected["grad:bias"] = np.array([1e-9])
    actual["grad:bias"] = np.array([1.1e-9])
    assert [c.ok for c in compare_pass(actual, expected, LIMITS)] == [True, False]
