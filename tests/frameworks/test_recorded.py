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
    assert {n for n in arrays if n.startswith("grad:")} >= set(case.gradients)
