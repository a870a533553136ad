"""A big file converts in little more memory than it has bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SIZE = 200_000_000
# In a process of its own, whose memory nothing else has had a part in.
WRITE = """
import sys
import numpy as np
from cbam_core import CBAMSpec, containers, dialects, expression
from cbam_core.contents import Contents
from tests import specs

official = dialects.DIALECTS["official"]
spec = CBAMSpec(64, **official.fields)
arrays = expression.spell({"cbam": (spec, specs.weights(spec))}, official)
for n in range(50):
    arrays[f"layer{n}.weight"] = np.full(1_000_000, n, np.float32)
containers.write(sys.argv[1], Contents(arrays), containers.CONTAINERS[sys.argv[2]])
"""
CONVERT = """
import resource, sys
import cbam_core
from cbam_core.containers import apart

cbam_core.convert(
    sys.argv[1], sys.argv[2], container=sys.argv[3], to="canonical", keep_rest=True
)
apart._end_all()

def own():
    # Linux lets ru_maxrss begin with what the process that started this one had.
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

peaks = own(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(max(peaks) * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("torch", "safetensors"), ("safetensors", "torch"), ("npz", "msgpack"), ("msgpack", "npz"),
        ("keras2", "keras3"), ("keras3", "keras2"),
    ],
)  # fmt: skip
def test_a_file_of_200_mb_takes_at_most_two_and_a_half_times_its_size(tmp_path, source, target):
    paths = [tmp_path / "source", tmp_path / "target"]
    try:
        subprocess.run([sys.executable, "-c", WRITE, paths[0], source], cwd=ROOT, check=True)
        assert paths[0].stat().st_size > SIZE
        command = [sys.executable, "-c", CONVERT, *paths, target]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        assert paths[1].stat().st_size > SIZE
        assert int(done.stdout) < 2.5 * SIZE
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
