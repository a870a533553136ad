"""Files of the frameworks' own making, since the tests of the core import no framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def torch_files(tmp_path_factory) -> Path:
    """The folder that torch_files.py has filled."""
    return _filled(tmp_path_factory, "torch_files")


@pytest.fixture(scope="session")
def orbax_files(tmp_path_factory) -> Path:
    """The folder that orbax_files.py has filled."""
    return _filled(tmp_path_factory, "orbax_files")


def _filled(tmp_path_factory, script: str) -> Path:
    folder = tmp_path_factory.mktemp(script)
    subprocess.run([sys.executable, "-m", f"tests.core.{script}", folder], check=True)
    return folder
