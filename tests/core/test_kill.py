"""A conversion that is killed at any moment leaves the old file or the new one."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pytest

import cbam_core
from cbam_core import CBAMSpec
from cbam_core.containers import CONTAINERS

# 200 in all. A library's process is started again after each kill, which takes a second or two;
# TensorFlow's takes ten, and its folders are put in their place by the same code as orbax'.
KILLS = {
    "safetensors": 54, "npz": 54, "msgpack": 54, "keras2": 14, "keras3": 14, "torch": 6, "orbax": 4,
}  # fmt: skip
SPEC = CBAMSpec(256)


def test_all_that_can_be_written_is_killed():
    writable = {name for name, container in CONTAINERS.items() if container.writes is True}
    assert (writable - set(KILLS), sum(KILLS.values())) == ({"tensorflow"}, 200)


def convert_forever(sources: list[Path], folder: Path, kind: str, started: Path) -> None:
    """Convert one source after the other, until killed: to one file, or each to its own folder."""
    container = CONTAINERS[kind]
    for number in itertools.count():
        name = f"target{number if container.is_folder else ''}{container.endings[0]}"
        source = sources[number % len(sources)]
        cbam_core.convert(source, folder / name, container=kind, to="canonical")
        started.touch()


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="needs POSIX processes"
)
@pytest.mark.parametrize("kind", KILLS)
def test_a_killed_conversion_leaves_the_target_whole(tmp_path, kind):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cbam_core.conversion"])
    sources, contents = [], []
    for seed in (1, 2):
        weights = cbam_core.initial_weights(SPEC, seed=seed)
        sources.append(tmp_path / f"{seed}.safetensors")
        cbam_core.write(sources[-1], weights, SPEC)
        contents.append(weights)
    moments = random.Random(5)
    seen = []
    for kill in range(KILLS[kind]):
        folder = tmp_path / ("out" if not CONTAINERS[kind].is_folder else f"out{kill}")
        folder.mkdir(exist_ok=True)
        started = tmp_path / "started"
        started.unlink(missing_ok=True)
        process = context.Process(target=convert_forever, args=(sources, folder, kind, started))
        process.start()
        while not started.exists():
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.join()
        targets = list(folder.glob("target*"))
        assert targets
        seen += [_which(cbam_core.read(target).weights, contents) for target in targets]
    # Both were seen, so the target did change while it was killed.
    assert set(seen) == {0, 1} or KILLS[kind] < 50


def _which(weights: dict[str, np.ndarray], contents: list[dict[str, np.ndarray]]) -> int:
    (which,) = [
        k
        for k, known in enumerate(contents)
        if all(np.array_equal(weights[name], known[name]) for name in known)
    ]
    return which
