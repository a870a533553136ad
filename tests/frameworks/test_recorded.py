"""What public implementations computed, computed again by every framework."""

from __future__ import annotations

import numpy as np
import pytest

from tests import recorded
from tests.compare import assert_equal


@pytest.mark.parametrize("name", recorded.NAMES)
def test_reproduces(framework, name):
    case = recorded.read(name)
    for mode, output in case.outputs.items():
        arrays, _ = framework.evaluate(
            case.spec,
            case.weights,
            case.x,
            case.cotangent,
            dtype="float64",
            training=mode == "train",
        )
        known = np.isfinite(output)
        found = {"output": np.where(known, arrays["output"], 0.0)}
        assert_equal(found, {"output": np.where(known, output, 0.0)}, case.limit)
    assert_equal({n: arrays[n] for n in case.gradients}, case.gradients, case.limit)
    assert_equal({n: arrays[n] for n in case.statistics}, case.statistics, case.limit)


def test_the_gradient_into_a_residual_block_is_the_recorded_one(framework):
    """What the attention hands back sums to the recorded gradient of the bias in front of it."""
    case, data = recorded.read("luuuyi_basicblock"), recorded.load("luuuyi_basicblock")
    arrays, _ = framework.evaluate(
        case.spec, case.weights, case.x, case.cotangent, dtype="float64", training=True
    )
    found = arrays["grad:input"].sum((0, 1, 2))
    assert_equal({"bn2.bias": found}, {"bn2.bias": data["grad/bn2.bias"]}, 1e-12)


def test_all_that_was_recorded_is_compared():
    for name in recorded.CASES:
        case, data = recorded.read(name), recorded.load(name)
        gradients = [key for key in data if key.startswith("grad/")]
        buffers = [key for key in data if key.startswith("after_train/")]
        assert len(case.gradients) == len(gradients) + 1, name
        # torch counts its batches, which no running statistic needs here.
        assert len(case.statistics) == len([b for b in buffers if "num_batches" not in b]), name
