"""tests/frameworks, once for each framework, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What is tested with which package's doctests; the slowest first. Those of linen run with flax's.
FRAMEWORKS = {
    "flax": ["cbam_flax"],
    "linen": [],
    "keras-jax": ["cbam_keras"],
    "tf": ["cbam_tf"],
    "torch": ["cbam_torch"],
    "keras-tensorflow": ["cbam_keras"],
    "keras-torch": ["cbam_keras"],
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_framework(name):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command += ["--framework", name, "--doctest-modules", "tests/frameworks", *FRAMEWORKS[name]]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    environment |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    # Also a run that collected nothing, or skipped something, is a failure.
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert "skipped" not in last, last
