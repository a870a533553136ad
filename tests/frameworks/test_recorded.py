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


def test_all_that_was_recorded_is_compared():
    for name in recorded.CASES:
        case, data = recorded.read(name), recorded.load(name)
        gradients = [key for key in data if key.startswith("grad/")]
        buffers = [key for key in data if key.startswith("after_train/")]
        assert len(case.gradients) == len(gradients) + 1, name
        # torch counts its batches, which no running statistic needs here.
        assert len(case.statistics) == len([b for b in buffers if "num_batches" not in b]), name
