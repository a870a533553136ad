"""Files of PyTorch's own making, since the tests of the core import no framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def torch_files(tmp_path_factory) -> Path:
    """The folder that torch_files.py has filled."""
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([sys.executable, "-m", "tests.core.torch_files", folder], check=True)
    return folder
