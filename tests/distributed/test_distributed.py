"""A training step over several devices is the step on one device, by each framework's engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.step import LIMIT

ROOT = Path(__file__).parent.parent.parent
ENGINES = [
    "keras_distribution",
    "keras_mirrored",
    "tf_mirrored",
    "torch_ddp",
    "torch_fsdp",
    "flax_sharding batch",
    "flax_sharding height",
    "linen_sharding batch",
    "linen_sharding height",
]


def differences(engine: str, *options: str) -> dict[str, float]:
    """How far loss, parameters and statistics are off after a step, relative to the largest."""
    command = [sys.executable, "-m", *f"tests.distributed.{engine}".split(), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    found = re.findall(r"^(\w+): differs by (\S+)", done.stdout, re.MULTILINE)
    assert [kind for kind, _ in found] == ["loss", "parameter", "state"], done.stderr[-4000:]
    largest = {kind: float(difference) for kind, difference in found}
    assert done.returncode == (max(largest.values()) > LIMIT)
    return largest


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_is_that_of_one_device(engine):
    assert max(differences(engine).values()) <= LIMIT


@pytest.mark.parametrize("engine", ["keras_mirrored", "tf_mirrored", "torch_ddp", "torch_fsdp"])
def test_norms_that_are_not_synchronized_make_it_another_step(engine):
    assert min(differences(engine, "--local").values()) > 1e-3
