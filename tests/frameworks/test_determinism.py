"""Training again from the same seed, and on another number of threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.compare import assert_equal

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def train(request, tmp_path):
    """Weights of trainings from the same seed, one behind the other in one process."""
    adapter = request.config.getoption("--framework").partition("-")[0]

    def run(dtype: str, threads: int, times: int = 1) -> list[dict[str, np.ndarray]]:
        files = [str(tmp_path / f"{dtype}-{threads}-{number}.npz") for number in range(times)]
        command = [sys.executable, "-m", "tests.frameworks.train_from_seed", adapter, dtype]
        command += [str(threads), *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        return [dict(np.load(file)) for file in files]

    return run


def test_the_same_seed_gives_the_same_bits_and_threads_change_only_the_order_of_sums(train):
    """In float64: in float32 a relu or a maximum may then decide otherwise, and a gradient jump."""
    (one,), (two, again) = train("float64", threads=1), train("float64", threads=2, times=2)
    assert {name: a.tobytes() for name, a in two.items()} == {
        name: a.tobytes() for name, a in again.items()
    }
    assert_equal(two, one, 1e-12)
