"""`crosscheck.compare` as an assertion: the one comparison of all tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crosscheck.compare import compare_pass


def assert_equal(
    actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], limit: float
) -> None:
    """Fail with all quantities that differ by more than `limit`, relative to the largest value."""
    limits = dict.fromkeys({name.partition(":")[0] for name in [*actual, *expected]}, limit)
    failed = [str(c) for c in compare_pass(actual, expected, limits) if not c.ok]
    assert not failed, "\n".join(failed)
