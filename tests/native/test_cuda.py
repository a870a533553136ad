"""The kernels for CUDA where there is no card: interpreted, compiled, and left alone.

TRITON_INTERPRET has to be set before triton is imported, so each check is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cbam_core.native import kernels

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
INTERPRETED = {"TRITON_INTERPRET": "1"}
# Where the Makefile puts it, or beside torch, as builds of torch for CUDA bring it.
TRITON = Path(sys.prefix) / "triton"


def python(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    rest = {name: value for name, value in os.environ.items() if name not in INTERPRETED}
    rest |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{TRITON}", "CBAM_KERNELS": "always"} | environment
    done = subprocess.run([sys.executable, *command], env=rest, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_they_are_the_composition(dtype):
    done = python(str(HERE / "interpreted.py"), dtype, **INTERPRETED)
    assert done.stdout.startswith(dtype)


def test_they_compile_and_read_maps_by_16_bytes(tmp_path):
    done = python(str(HERE / "compiled.py"), "80", TRITON_CACHE_DIR=str(tmp_path))
    assert done.stdout.split() == ["_join", "_pool", "_pool_backward", "_scale", "_scale_backward"]


def test_triton_is_loaded_where_it_is_used_alone():
    code = """
import sys, torch
from cbam_torch import CBAM
CBAM(64)(torch.ones(2, 64, 16, 16)).sum().backward()
print("triton" in sys.modules)
"""
    assert python("-c", code).stdout.split() == ["False"]


def test_without_triton_plain_operations_or_native_kernels_run_and_it_is_told_once():
    code = """
import sys, torch
sys.modules["triton"] = None
from cbam_torch import ops
print(*(ops.path(torch.ones(2, 64, 16, 16, dtype=dtype)) for dtype in (torch.half, torch.float)))
"""
    done = python("-c", code, **INTERPRETED)
    on_cpu = "native" if kernels() else "composition"
    assert done.stdout.split() == ["composition", on_cpu]
    assert done.stderr.count("no kernels for CUDA here and runs on plain operations") == 1


def test_they_know_cards_of_compute_capability_8_and_above():
    code = """
import torch
from types import SimpleNamespace
from cbam_torch import cuda
cards = [(7, 5), (8, 0), (12, 0)]
torch.cuda.get_device_capability = lambda device: cards[device.index]
for number in range(3):
    x = SimpleNamespace(device=torch.device("cuda", number), dtype=torch.bfloat16)
    print(cuda.knows(x))
print(cuda.knows(torch.ones(2)), cuda.knows(SimpleNamespace(device=x.device, dtype=torch.int32)))
"""
    assert python("-c", code).stdout.split() == ["False", "True", "True", "False", "False"]


def test_the_benchmark_refuses_to_run_without_a_card():
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py")]
    rest = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=rest, capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs a CUDA device" in done.stderr
