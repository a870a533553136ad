"""A conversion that is killed at any moment leaves the old file or the new one."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pytest

import cbam_core
from cbam_core import CBAMSpec

KILLS = 200
SPEC = CBAMSpec(256)


def convert_forever(sources: list[Path], target: Path, started: Path) -> None:
    """Convert one source after the other to the same target, until killed."""
    while True:
        for source in sources:
            cbam_core.convert(source, target)
            started.touch()


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="needs POSIX processes"
)
def test_a_killed_conversion_leaves_the_target_whole(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cbam_core"])
    sources, contents = [], []
    for seed in (1, 2):
        weights = cbam_core.initial_weights(SPEC, seed=seed)
        sources.append(tmp_path / f"{seed}.safetensors")
        cbam_core.write(sources[-1], weights, SPEC)
        contents.append(weights)
    folder = tmp_path / "out"
    folder.mkdir()
    target, started = folder / "target.safetensors", tmp_path / "started"
    moments = random.Random(5)
    seen = []
    for _ in range(KILLS):
        started.unlink(missing_ok=True)
        process = context.Process(target=convert_forever, args=(sources, target, started))
        process.start()
        while not started.exists():
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.join()
        seen.append(_which(cbam_core.read(target).weights, contents))
    # Both were seen, so the target did change while it was killed.
    assert set(seen) == {0, 1}


def _which(weights: dict[str, np.ndarray], contents: list[dict[str, np.ndarray]]) -> int:
    (which,) = [
        k
        for k, known in enumerate(contents)
        if all(np.array_equal(weights[name], known[name]) for name in known)
    ]
    return which
