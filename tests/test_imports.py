"""Importing one package loads no other framework, and adds little time to its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cbam_core.containers import CONTAINERS

ROOT = Path(__file__).parent.parent

# What a package imports itself; what that loads in turn (TensorFlow loads Keras and JAX) is not
# this project's doing, and does not count.
OWN = {
    "cbam_core": (),
    "cbam_torch": ("torch",),
    "cbam_tf": ("tensorflow",),
    "cbam_keras": ("keras",),
    "cbam_flax": ("jax", "flax.nnx"),
    "cbam_flax.linen": ("jax", "flax.nnx", "flax.linen"),
    "crosscheck": (),
    "crosscheck.cli": (),
}
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "flax"}


def _python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("package", "backend"),
    [(package, "jax") for package in OWN] + [("cbam_keras", "tensorflow"), ("cbam_keras", "torch")],
)
def test_loads_only_its_own_framework(package, backend):
    """And few modules, counted and not timed: its own files, the core's, what NumPy loads late."""
    modules = ("numpy", "safetensors.numpy", *OWN[package])
    code = f"""
import sys
{"".join(f"import {module}; " for module in modules)}
before = set(sys.modules)
import {package}
loaded = set(sys.modules) - before
print(len(loaded), *({FRAMEWORKS} & loaded))
"""
    count, *others = _python(code, KERAS_BACKEND=backend).split()
    assert others == []
    # The command brings libraries of its own.
    assert not package.startswith("cbam_") or int(count) < 40


@pytest.mark.parametrize("package", [name for name in OWN if name.startswith("cbam_")])
def test_its_files_import_nothing_else(package):
    """By the source, since TensorFlow, say, loads Keras and JAX itself and would hide an import."""
    folder = ROOT / package.replace(".", "/")
    allowed = {
        "numpy",
        "safetensors",
        "cbam_core",
        package.partition(".")[0],
        *sys.stdlib_module_names,
    }
    allowed |= {module.partition(".")[0] for module in OWN[package]}
    for path in folder.rglob("*.py"):
        # Keras leaves gradients, devices and replicas to its backends, which five files ask.
        asking = ("devices.py", "evaluate.py", "explain.py", "replicas.py", "train.py")
        asks = path.parts[-2] == "cbam_keras" and path.name in asking
        backends = {"tensorflow", "torch", "jax"} if asks else set()
        # Flax's optimizers are optax's.
        if "cbam_flax" in path.parts and path.name == "train.py":
            backends = {"optax"}
        # Triton comes with builds of torch for CUDA, where one file is imported when it is there.
        if path.name == "triton_kernels.py":
            backends = {"triton"}
        # What the Hub needs is imported when it is asked.
        if path.name == "hub.py":
            backends = {"huggingface_hub"}
        # A container's library is imported by its file alone, when such a file is read.
        if path.parent == ROOT / "cbam_core" / "containers":
            # orbax hands arrays over as JAX's.
            libraries = {c.requires[0].partition(".")[0] for c in CONTAINERS.values() if c.requires}
            backends = libraries | {"jax"}
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] in allowed | backends, f"{path.name}: {name}"


def test_the_core_needs_numpy_and_safetensors_alone():
    code = """
import sys
before = set(sys.modules)
import numpy, safetensors.numpy
allowed = set(sys.modules)
import cbam_core
names = {name.partition('.')[0] for name in set(sys.modules) - allowed}
print(*sorted(names - set(sys.stdlib_module_names) - {'cbam_core'}))
"""
    assert _python(code) == ""
