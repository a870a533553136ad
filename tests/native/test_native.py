"""The native kernels by themselves: their memory, their bits, and an installation without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from cbam_core import native

ROOT = Path(__file__).parents[2]
SANITIZED = Path(__file__).with_name("sanitized.cpp")
FLAGS = ["-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-Wno-psabi", "-DCBAM_ONE_TARGET"]
ADDRESSES = ["-fsanitize=address,undefined", "-fopenmp"]
# Which does not see how OpenMP's threads wait for each other.
THREADS = ["-fsanitize=thread"]


def sanitized(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Every kernel under a sanitizer, called by itself and as XLA does."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    assert compiler, "the kernels are tested where a C++ compiler is on the path"
    program = folder / "sanitized"
    sources = ["-I", str(ROOT / "cbam_core/native"), str(SANITIZED), "-o", str(program)]
    subprocess.run([compiler, *FLAGS, "-fno-sanitize-recover=all", *options, *sources], check=True)
    return subprocess.run([program], capture_output=True, text=True)


@pytest.mark.compiler
@pytest.mark.parametrize("sanitizer", [ADDRESSES, THREADS], ids=["addresses", "threads"])
def test_sanitizers_find_nothing_and_bits_do_not_depend_on_threads(tmp_path, sanitizer):
    result = sanitized(tmp_path, *sanitizer)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.compiler
def test_sanitizers_find_what_is_planted(tmp_path):
    result = sanitized(tmp_path, *ADDRESSES, "-DPLANTED")
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


@pytest.mark.compiler
def test_they_are_built_where_there_is_a_compiler():
    assert native.kernels() is not None


def build(folder: Path, compiler: str) -> subprocess.CompletedProcess[str]:
    """Build them from a copy of what the build needs."""
    shutil.copy(ROOT / "setup.py", folder)
    ignored = shutil.ignore_patterns("__pycache__", native.FILE)
    shutil.copytree(ROOT / "cbam_core/native", folder / "cbam_core/native", ignore=ignored)
    (folder / "cbam_core/__init__.py").touch()
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    environment = os.environ | {"CC": compiler, "CXX": compiler}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def test_an_installation_without_a_compiler_has_none_and_says_so(tmp_path):
    result = build(tmp_path, "no-such-compiler")
    assert 'extension "cbam_core.native.primitives" failed' in result.stdout + result.stderr
    assert not (tmp_path / "cbam_core/native" / native.FILE).exists()


def test_a_missing_library_is_told_once(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "FILE", str(tmp_path / native.FILE))
    native.kernels.cache_clear()
    try:
        with pytest.warns(UserWarning, match="no native kernels here and runs on plain operations"):
            assert native.kernels() is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert native.kernels() is None
    finally:
        native.kernels.cache_clear()
