"""Every Python example of the pages runs, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crosscheck.faults import FAULTS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    (f"{page.name}-{number}", block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]
# What torchrun sets for a single process.
TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
# Written like the marks of figures that are still to be filled in, but meant.
VARIABLES = {"CBAM_KERNELS", "KERAS_BACKEND", "TF_CONFIG", "XLA_FLAGS"}


@pytest.mark.parametrize(("name", "code"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_example_runs(name, code, tmp_path):
    # The optimizers of tf.keras are those of the backend.
    backend = "tensorflow" if "tensorflow as tf" in code else "jax"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend} | TORCHRUN
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{code}\n{done.stderr[-2000:]}"


def test_no_placeholder_is_left():
    for page in PAGES:
        assert set(re.findall(r"\b[A-Z]+_[A-Z]+\b", page.read_text())) <= VARIABLES, page.name


def test_the_number_of_faults_is_the_one_that_is_told():
    assert f"plants {len(FAULTS)} faults" in (ROOT / "README.md").read_text()


def test_the_pages_name_only_what_exists():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
