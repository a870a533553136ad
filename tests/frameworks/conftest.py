"""The framework under test, as the adapter that tests/frameworks/adapters has for it."""

from __future__ import annotations

import importlib

import pytest

from crosscheck.frameworks import FRAMEWORKS


@pytest.fixture(scope="session")
def framework(request: pytest.FixtureRequest):
    name = request.config.getoption("--framework")
    importlib.import_module(f"{FRAMEWORKS[name].package}.evaluate").prepare("cpu")
    adapter = name.partition("-")[0]
    return importlib.import_module(f"tests.frameworks.adapters.{adapter}_adapter")
